//! The most frequent words of a file of any length, counted by two workers while it is read.
//!
//! ```text
//! cargo run --release --example count_words -- FILE
//! ```
//!
//! Exit codes: 0 success, 1 failure with one line on standard error.

use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use roadshow::observe::Chain;
use roadshow::prelude::*;
use roadshow::words::{TextCounts, count_file, count_stream};

const WORKERS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// Number of words printed.
const SHOWN: usize = 10;

#[roadshow::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {}", Chain(&*err));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("give the path of a text")?;
    let cluster = Cluster::builder().workers(WORKERS.get()).start().await?;

    let start = Instant::now();
    let text = count_file(&cluster.handle(), &path, WORKERS).await?;
    println!("file, read by the workers if they see it: {:.3} s", start.elapsed().as_secs_f64());

    // Counts the text again by sending it to the workers. A pipe has been read already.
    if std::fs::metadata(&path)?.is_file() {
        let start = Instant::now();
        let again = count_stream(&cluster.handle(), File::open(&path)?, WORKERS).await?;
        println!("text, sent to the workers: {:.3} s", start.elapsed().as_secs_f64());
        if again != text {
            return Err("the file has changed meanwhile; count it when no process writes to it".into());
        }
    }
    cluster.shutdown().await?;
    show(&text);
    Ok(())
}

fn show(text: &TextCounts) {
    println!("{} bytes, {} words, {} different", text.bytes, text.words, text.counts.len());
    let mut words: Vec<_> = text.counts.iter().collect();
    words.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.count));
    for (word, tally) in words.into_iter().take(SHOWN) {
        println!("{:>12} {word}", tally.count);
    }
}
