//! Counts the words of a long text by two workers. The limit in the same run is one process with as many
//! threads, a memory-mapped file, and the same tokenizer and tables.
//!
//! All methods read a file in the page cache and return the counts of all words. The text is the handbook
//! repeated, or the file that `WORDS_TEXT` names. The workers read the file after they were asked if they
//! see it, receive its text, or read the file without being asked. The methods alternate in each round,
//! since the speed of a machine changes from minute to minute. The output is the median of each method and
//! of its ratio to the limit.
//!
//! ```text
//! WORDS_TEXT=FILE cargo bench --bench count
//! ```

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use memmap2::Mmap;
use roadshow::Cluster;
use roadshow::words::{
    Counts, PIECE_BYTES, Places, TextCounter, count_file, count_shared_file, count_stream, total,
};

const HANDBOOK: &str = include_str!("../docs/handbook.md");

/// Number of workers, and of threads of the limit.
const WORKERS: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// Repetitions of the handbook: about 100 MB.
const HANDBOOKS: usize = 4200;

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    roadshow::run_if_worker();
    // As criterion does: `cargo bench` passes `--bench`. `cargo test` only checks that the bench runs, so a short text
    // and one round are enough.
    let test = !env::args().any(|arg| arg == "--bench");
    let (handbooks, rounds) = if test { (30, 1) } else { (HANDBOOKS, ROUNDS) };
    let text = match env::var_os("WORDS_TEXT") {
        Some(path) => Text::Given(path),
        None => Text::made(handbooks)?,
    };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(WORKERS.get()).build()?;
    let system = actix::System::new();
    let cluster = system.block_on(Cluster::local(WORKERS.get()))?;

    let [mut file, mut sent, mut shared, mut limit] = [(); 4].map(|()| Vec::new());
    let mut bytes = 0;
    // Every round runs all methods, so a slow minute of the machine affects all of them.
    for _ in 0..rounds {
        let (counted, seconds) =
            timed(|| system.block_on(count_file(&cluster.handle(), text.path(), WORKERS)));
        let counted = counted?;
        bytes = counted.bytes;
        file.push(seconds);
        let open = File::open(text.path())?;
        let (again, seconds) = timed(|| system.block_on(count_stream(&cluster.handle(), open, WORKERS)));
        assert!(again? == counted, "all methods count the same words");
        sent.push(seconds);
        let (again, seconds) =
            timed(|| system.block_on(count_shared_file(&cluster.handle(), text.path(), WORKERS)));
        assert!(again? == counted, "all methods count the same words");
        shared.push(seconds);
        let (counts, seconds) = timed(|| threads.install(|| count_mapped(text.path())));
        limit.push(seconds);
        let counts = counts.map_err(|err| err.to_string())?;
        assert!(counts == counted.counts, "all methods count the same words");
    }
    system.block_on(cluster.shutdown())?;

    println!("{bytes} bytes, {WORKERS} workers, {rounds} rounds; {:>35}", "vs limit");
    let rows = [
        ("file, workers asked first", &file),
        ("text sent to workers", &sent),
        ("shared file, mapped by workers", &shared),
        ("limit: one process, mapped", &limit),
    ];
    for (name, seconds) in rows {
        // The median of the ratios, not the ratio of the medians: each ratio compares runs of the same
        // minute.
        let ratio = median(seconds.iter().zip(&limit).map(|(seconds, limit)| seconds / limit));
        let seconds = median(seconds.iter().copied());
        println!("{name:<32} {seconds:8.4} s {:8.0} MB/s {ratio:8.2}", bytes as f64 / 1e6 / seconds);
    }
    Ok(())
}

fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed().as_secs_f64())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Counts on threads of this process: they take pieces in turn, each into its own table.
#[expect(unsafe_code, reason = "no process writes to the file of a bench, so the mapping does not change")]
fn count_mapped(path: &Path) -> Result<Counts, Box<dyn Error + Send + Sync>> {
    let file = File::open(path)?;
    // SAFETY: no process writes to the file while it is mapped.
    let text = unsafe { Mmap::map(&file)? };
    let pieces = Mutex::new(pieces(&text).enumerate());
    let counted = rayon::broadcast(|_| {
        let (mut counter, mut counted) = (TextCounter::default(), Vec::new());
        loop {
            let next = pieces.lock().expect("no thread panics").next();
            let Some((index, piece)) = next else { break };
            counted.push((index, counter.add(std::str::from_utf8(piece)?)));
        }
        Ok::<_, std::str::Utf8Error>((counter, counted))
    });
    let counted = counted.into_iter().collect::<Result<Vec<_>, _>>()?;

    let mut order: Vec<_> = counted
        .iter()
        .enumerate()
        .flat_map(|(thread, (_, pieces))| pieces.iter().map(move |&(index, words)| (index, words, thread)))
        .collect();
    // Threads finish pieces in any order, but a position is the number of all words before it.
    order.sort_unstable();
    let (mut places, mut position) = (vec![Places::default(); counted.len()], 0);
    for (_, words, thread) in order {
        places[thread].push(words, position);
        position += words;
    }
    let parts =
        counted.iter().zip(&places).map(|((counter, _), places)| Ok(counter.counts()?.placed(places)));
    Ok(total(&parts.collect::<Result<Vec<_>, Box<dyn Error + Send + Sync>>>()?)?)
}

/// Splits a text into pieces that end at white space.
fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> + Send {
    let mut rest = text;
    std::iter::from_fn(move || {
        let near = &rest[..rest.len().min(PIECE_BYTES)];
        let space = near.iter().rposition(u8::is_ascii_whitespace);
        let end = if near.len() == rest.len() { near.len() } else { space.map_or(rest.len(), |at| at + 1) };
        let (piece, later) = rest.split_at(end);
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Text of a run.
enum Text {
    Given(OsString),
    /// Generated file, removed on drop.
    Made(PathBuf),
}

impl Text {
    fn made(handbooks: usize) -> std::io::Result<Self> {
        let path = env::temp_dir().join(format!("roadshow-count-{}.txt", std::process::id()));
        let made = Self::Made(path.clone());
        let mut file = BufWriter::new(File::create(path)?);
        for _ in 0..handbooks {
            file.write_all(HANDBOOK.as_bytes())?;
        }
        file.flush()?;
        Ok(made)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => Path::new(path),
            Self::Made(path) => path,
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Self::Made(path) = self {
            // A file that cannot be removed is left to the cleaning of the temporary directory.
            let _ = fs::remove_file(path);
        }
    }
}
