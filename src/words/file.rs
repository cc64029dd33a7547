//! Counts a file: by Nodes that read it themselves if all of them see it, otherwise as a text that is sent.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use super::{
    error::TextError,
    file_id::FileId,
    pieces::Pieces,
    range::FileRange,
    stream::{TextCounts, count_by, spawn, stop, texts},
    text_node::{CountPiece, SeesFile, TextNode},
};
use crate::prelude::*;

/// Maximum length of the range that a Node reads for one message, in bytes: some milliseconds of work.
const RANGE_BYTES: u64 = 1 << 20;

/// Target number of ranges for each Node of a short file. With several each, all Nodes stay busy until the
/// end.
const RANGES_OF_EACH: u64 = 8;

/// Minimum length of a range, in bytes. Reading it is several times the work of one message.
const RANGE_BYTES_MIN: u64 = 64 << 10;

/// Time limit for a Node to look for a file. A Node that takes longer, as on a dead file server, does not
/// see it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts all words of a file by Nodes over the cluster.
///
/// This process opens the file and asks each Node whether it sees the same file at this path. Workers on
/// this machine do; [`FileId`] lists what is compared. If all Nodes see it, each gets ranges to read, and
/// no text is sent. Otherwise this process reads the text and sends it, as
/// [`count_stream`](super::count_stream) does. The text of a pipe, of a file without a length, or of one
/// without a path in UTF-8 is always sent, and so is any file on a system that is not Linux.
///
/// Both cases count the same text: the bytes that the file had when it was opened. Moving, removing or
/// appending to the file does not change the result.
///
/// # Errors
///
/// [`TextError`] if the file cannot be read to its length at opening, is not UTF-8, or if a Node fails.
///
/// # Cancel safety
///
/// Dropping the future cancels the requests in flight. The reading thread finishes its piece, and a reading
/// Node its range. The Nodes live until the cluster ends, and keep the file open if they see it.
///
/// # Examples
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use roadshow::prelude::*;
/// use roadshow::words::count_file;
///
/// # async fn run(cluster: Cluster) -> Result<(), Box<dyn std::error::Error>> {
/// let nodes = NonZeroUsize::new(2).ok_or("two")?;
/// let text = count_file(&cluster.handle(), "book.txt", nodes).await?;
/// println!("{} words, the most frequent: {:?}", text.words, text.counts.most_frequent());
/// # Ok(())
/// # }
/// ```
pub async fn count_file(
    cluster: &ClusterRef,
    path: impl AsRef<Path>,
    nodes: NonZeroUsize,
) -> Result<TextCounts, TextError> {
    let path = path.as_ref();
    // The file is opened before any Node is spawned: a wrong path costs nothing. While it is open, no
    // other file can get its inode number.
    let (file, id) = open(path)?;
    let nodes = spawn(cluster, nodes).await?;
    let counted = count_opened(&nodes, path, file, id).await;
    stop(&nodes).await;
    counted
}

/// Counts all words of a file that every worker finds at the same path.
///
/// No text is sent: each Node gets ranges and reads them in pieces of [`PIECE_BYTES`](super::PIECE_BYTES),
/// one after another. [`count_file`] does so by itself where the workers see the same file. This function
/// does not check that, so the workers may have the file on their own disks or on a network file system. A
/// worker with a different file at that path counts a different text.
///
/// # Errors
///
/// [`TextError`] as [`count_file`], or if the file has no length, as a pipe has none.
///
/// # Cancel safety
///
/// Dropping the future lets a reading Node finish its range. The Nodes live until the cluster ends.
pub async fn count_shared_file(
    cluster: &ClusterRef,
    path: impl AsRef<Path>,
    nodes: NonZeroUsize,
) -> Result<TextCounts, TextError> {
    let path = path.as_ref();
    let closed = |source| TextError::Closed { path: path.into(), source };
    let (_, id) = open(path)?;
    let len = id.ok_or_else(|| closed(ErrorKind::NotSeekable.into()))?.len();
    // Workers may have another working directory.
    let path = path.canonicalize().map_err(closed)?;
    let range = move |from, to| CountPiece::Range(FileRange { path: path.clone(), from, to });
    let nodes = spawn(cluster, nodes).await?;
    let counted = count_ranges(&nodes, len, range).await;
    stop(&nodes).await;
    counted
}

/// Opens a text and returns its identity if it is a regular file.
fn open(path: &Path) -> Result<(File, Option<FileId>), TextError> {
    let closed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => TextError::NotFound(path.into()),
        ErrorKind::IsADirectory => TextError::Directory(path.into()),
        _ => TextError::Closed { path: path.into(), source },
    };
    let file = File::open(path).map_err(closed)?;
    let metadata = file.metadata().map_err(closed)?;
    if metadata.is_dir() {
        return Err(TextError::Directory(path.into()));
    }
    Ok((file, FileId::from_metadata(&metadata)))
}

/// Lets the Nodes read an open file if all of them see it; otherwise sends them its text.
async fn count_opened(
    nodes: &[RemoteAddr<TextNode>],
    path: &Path,
    file: File,
    id: Option<FileId>,
) -> Result<TextCounts, TextError> {
    // Files that the kernel generates, such as those in /proc, have length 0 and still have text.
    let known = id.filter(|id| id.len() > 0);
    match known {
        Some(id) if all_see(nodes, path, id, LOOK_TIMEOUT).await? => {
            count_ranges(nodes, id.len(), |from, to| CountPiece::Seen { from, to }).await
        }
        _ => {
            // The length at opening bounds the text, so bytes appended later are not counted.
            let text = file.take(known.map_or(u64::MAX, |id| id.len()));
            count_by(nodes, texts(Pieces::new(text, known.map(|id| id.len())))).await
        }
    }
}

/// Asks every Node whether it sees this very file at a path, within the time limit.
async fn all_see(
    nodes: &[RemoteAddr<TextNode>],
    path: &Path,
    file: FileId,
    timeout: Duration,
) -> Result<bool, TextError> {
    // Workers may have another working directory. A path that is not UTF-8 cannot be sent.
    let path = path.canonicalize().ok().filter(|path| path.to_str().is_some());
    let Some(path) = path else { return Ok(false) };
    let ask = |node: &RemoteAddr<_>| node.send(SeesFile { path: path.clone(), file }).timeout(timeout);
    let mut all = true;
    for sees in join_all(nodes.iter().map(ask)).await {
        all &= match sees {
            // A Node that does not answer in time is treated as one without the file: sending the text is
            // slower and always works.
            Err(err) if err.is_timeout() => false,
            sees => sees?,
        };
    }
    Ok(all)
}

/// Lets Nodes count a text of this length by messages that carry ranges.
async fn count_ranges(
    nodes: &[RemoteAddr<TextNode>],
    len: u64,
    message: impl Fn(u64, u64) -> CountPiece + Send + 'static,
) -> Result<TextCounts, TextError> {
    let share = len / (RANGES_OF_EACH * nodes.len() as u64);
    let range = share.clamp(RANGE_BYTES_MIN, RANGE_BYTES);
    let ranges = (0..len).step_by(range as usize).map(move |from| {
        let to = len.min(from + range);
        Ok((message(from, to), to - from))
    });
    count_by(nodes, ranges).await.map_err(|err| match err {
        // A Node knows only the end of its range; the error needs the length of the whole text.
        TextError::Truncated { at, .. } => TextError::Truncated { len, at },
        err => err,
    })
}

#[cfg(test)]
mod tests {
    use crate::property_tests;
    use proptest::prelude::*;

    use std::fs::{self, OpenOptions};
    use std::io::{Seek, SeekFrom, Write};
    use std::sync::{Mutex, mpsc};

    use super::super::pieces::PIECE_BYTES_MAX;
    use super::super::stream::tests::{expected, two};
    use super::super::temporary::Temporary;
    use super::*;
    use crate::words::PieceError;

    /// Counts an open file twice: by two Nodes that see it, and by two that get its text. `happens` changes
    /// the file after it is opened.
    async fn both_ways(file: &Temporary, happens: impl FnOnce(&Path)) -> [Result<TextCounts, TextError>; 2] {
        let cluster = Cluster::in_process(2).await.unwrap();
        let nodes = spawn(&cluster.handle(), two()).await.unwrap();
        let (open, id) = open(&file.0).unwrap();
        let seen_id = id.unwrap();
        assert!(all_see(&nodes, &file.0, seen_id, LOOK_TIMEOUT).await.unwrap());
        happens(&file.0);
        let range = |from, to| CountPiece::Seen { from, to };
        let seen = count_ranges(&nodes, seen_id.len(), range).await;

        let others = spawn(&cluster.handle(), two()).await.unwrap();
        let sent = count_opened(&others, Path::new("no such file"), open, id).await;
        cluster.shutdown().await.unwrap();
        [seen, sent]
    }

    proptest! {
        #![proptest_config(property_tests::cases(8))]

        #[test]
        fn file_is_the_same_text_whether_it_is_seen_or_sent(
            words in prop::collection::vec("[a-dA-DΣ’]{1,3}|[a-z]{14,18}", 1..200),
            bytes in 0..5 * RANGE_BYTES as usize,
            wrong in prop::collection::vec(0.0..1.0, 0..3),
            cut in prop::option::of(0.0..1.0),
        ) {
            let once = words.join(" ") + "\n";
            let text = once.repeat(bytes / once.len() + 1) + "the end";
            let place = |share: f64| (share * text.len() as f64) as usize;
            let (mut bytes, cut) = (text.clone().into_bytes(), cut.map(place));
            if cut.is_none() {
                wrong.into_iter().for_each(|share| bytes[place(share)] = 0xff);
            }
            let expect = match (cut, std::str::from_utf8(&bytes)) {
                (Some(at), _) => Err(TextError::Truncated { at: at as u64, len: text.len() as u64 }),
                (None, Err(err)) => Err(TextError::NotUtf8 { at: err.valid_up_to() as u64 }),
                (None, Ok(text)) => Ok(expected(text)),
            };

            let file = Temporary::new("both", &bytes);
            let happens = |path: &Path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                cut.into_iter().for_each(|len| file.set_len(len as u64).unwrap());
            };
            for counted in actix_rt::System::new().block_on(both_ways(&file, happens)) {
                prop_assert_eq!(format!("{:?}", counted.as_ref().err()), format!("{:?}", expect.as_ref().err()));
                prop_assert!(counted.ok() == expect.as_ref().ok().cloned());
            }
        }
    }

    #[actix::test]
    async fn error_for_a_path_without_a_text_names_the_path() {
        let cluster = Cluster::in_process(1).await.unwrap();
        let directory = count_file(&cluster.handle(), env!("CARGO_MANIFEST_DIR"), two()).await.unwrap_err();
        assert!(matches!(directory, TextError::Directory(_)), "{directory:?}");
        let nothing = count_file(&cluster.handle(), "no such file", two()).await.unwrap_err();
        assert!(matches!(nothing, TextError::NotFound(_)), "{nothing:?}");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/handbook.md");
        let expect = expected(include_str!("../../docs/handbook.md"));
        assert_eq!(count_file(&cluster.handle(), file, two()).await.unwrap(), expect);
        assert_eq!(count_shared_file(&cluster.handle(), file, two()).await.unwrap(), expect);
        cluster.shutdown().await.unwrap();
    }

    /// Returns several ranges of text and an incomplete last one.
    fn text() -> String {
        "to be or not ".repeat(3 * RANGE_BYTES as usize / 13) + "to be"
    }

    #[actix::test]
    async fn file_is_counted_to_its_length_at_opening_even_if_its_path_changes() {
        let text = text();
        let replace = |path: &Path| {
            let other = Temporary::new("other", "another text ".repeat(text.len() / 13 + 1).as_bytes());
            fs::rename(&other.0, path).unwrap();
        };
        let append = |path: &Path| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(b"come and more").unwrap();
        };
        let happens: [&dyn Fn(&Path); 3] = [&replace, &append, &|path| fs::remove_file(path).unwrap()];
        for happens in happens {
            let file = Temporary::new("becomes", text.as_bytes());
            for counted in both_ways(&file, happens).await {
                assert!(counted.unwrap() == expected(&text));
            }
        }
    }

    #[actix::test]
    async fn overlong_word_is_the_same_error_both_ways() {
        let words = "a ".repeat(RANGE_BYTES as usize);
        let file = Temporary::new("no-word", (words.clone() + &"x".repeat(2 * PIECE_BYTES_MAX)).as_bytes());
        for counted in both_ways(&file, |_| ()).await {
            let err = counted.unwrap_err();
            assert!(matches!(err, TextError::NoSpace { at, .. } if at == words.len() as u64), "{err:?}");
        }
    }

    #[actix::test]
    async fn file_that_all_nodes_see_is_not_read_here() {
        let (text, cluster) = (text(), Cluster::in_process(2).await.unwrap());
        let file = Temporary::new("not-here", text.as_bytes());
        let nodes = spawn(&cluster.handle(), two()).await.unwrap();
        let (mut open, id) = open(&file.0).unwrap();
        // At the end of the file a read here would return nothing, so the text must come from the Nodes'
        // own reads.
        open.seek(SeekFrom::End(0)).unwrap();
        let counted = count_opened(&nodes, &file.0, open, id).await.unwrap();
        assert!(counted == expected(&text));
        cluster.shutdown().await.unwrap();
    }

    #[actix::test]
    async fn file_that_a_node_does_not_see_is_sent() {
        let (text, cluster) = (text(), Cluster::in_process(2).await.unwrap());
        let (file, other) = (Temporary::new("unseen", text.as_bytes()), Temporary::new("seen", b"other"));
        let nodes = spawn(&cluster.handle(), two()).await.unwrap();
        let (open, id) = open(&file.0).unwrap();
        assert!(!all_see(&nodes, &other.0, id.unwrap(), LOOK_TIMEOUT).await.unwrap());
        let counted = count_opened(&nodes, &other.0, open, id).await.unwrap();
        assert!(counted == expected(&text));

        let range = || CountPiece::Seen { from: 0, to: 1 };
        let err = nodes[0].send(range()).await.unwrap().unwrap_err();
        assert!(matches!(err, PieceError::Unreadable { at: 0, .. }), "{err:?}");
        cluster.shutdown().await.unwrap();
    }

    /// Actor that blocks its thread until the test releases it.
    #[derive(Debug, RemoteActor)]
    #[remote(handles(Hold))]
    struct Holder;

    impl Actor for Holder {
        type Context = Context<Self>;
    }

    impl Spawn for Holder {
        type Args = ();
        type Error = std::convert::Infallible;

        fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Self::Error> {
            Ok(Self)
        }
    }

    #[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
    #[rtype(result = "()")]
    struct Hold;

    static HELD: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);

    impl Handler<Hold> for Holder {
        type Result = ();

        fn handle(&mut self, _: Hold, _: &mut Context<Self>) {
            let held = HELD.lock().unwrap().take();
            // An error is expected: the sender is dropped without sending.
            let _ = held.unwrap().recv();
        }
    }

    #[actix::test]
    async fn slow_node_is_treated_as_one_that_does_not_see_the_file() {
        let (text, cluster) = (text(), Cluster::in_process(1).await.unwrap());
        let file = Temporary::new("slow", text.as_bytes());
        let nodes = spawn(&cluster.handle(), NonZeroUsize::MIN).await.unwrap();
        let holder = cluster.spawn::<Holder>(()).await.unwrap();
        let (_, id) = open(&file.0).unwrap();
        let (release, held) = mpsc::sync_channel(1);
        HELD.lock().unwrap().replace(held);
        holder.tell(Hold).await.unwrap();
        assert!(!all_see(&nodes, &file.0, id.unwrap(), Duration::from_millis(20)).await.unwrap());
        drop(release);
        assert!(all_see(&nodes, &file.0, id.unwrap(), LOOK_TIMEOUT).await.unwrap());
        cluster.shutdown().await.unwrap();
    }

    #[actix::test]
    async fn file_whose_path_is_not_utf8_is_sent() {
        use std::os::unix::ffi::OsStrExt;

        let cluster = Cluster::in_process(1).await.unwrap();
        let mut file = Temporary::new("named", b"to be or not to be");
        let name = [file.0.as_os_str().as_bytes(), b"-\xff"].concat();
        let name = Path::new(std::ffi::OsStr::from_bytes(&name));
        fs::rename(std::mem::replace(&mut file.0, name.into()), name).unwrap();
        let counted = count_file(&cluster.handle(), name, two()).await.unwrap();
        assert_eq!(counted, expected("to be or not to be"));
        cluster.shutdown().await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[actix::test]
    async fn file_that_the_kernel_generates_has_its_text() {
        let cluster = Cluster::in_process(1).await.unwrap();
        let counted = count_file(&cluster.handle(), "/proc/version", two()).await.unwrap();
        assert_eq!(counted, expected(&fs::read_to_string("/proc/version").unwrap()));
        cluster.shutdown().await.unwrap();
    }
}
