//! Tasks cannot be async.

#[roadshow::task]
async fn fetch(url: String) -> String {
    url
}

fn main() {}
