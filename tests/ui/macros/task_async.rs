//! A task does not wait.

#[roadshow::task]
async fn fetch(url: String) -> String {
    url
}

fn main() {}
