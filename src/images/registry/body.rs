//! A blob as a request's body: read piece by piece as the network takes it.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use fs_err as fs;
use hyper::body::{Frame, SizeHint};

/// Bytes per piece.
const PIECE: u64 = 128 << 10;

/// The rest of a file.
#[derive(Debug)]
pub(super) struct FileBody {
    file: fs::File,
    left: u64,
    /// Bytes handed over so far, counted from the file's beginning.
    sent: Arc<AtomicU64>,
}

impl FileBody {
    /// A file of `size` bytes from `begin` on.
    pub(super) fn new(mut file: fs::File, begin: u64, size: u64, sent: &Arc<AtomicU64>) -> io::Result<FileBody> {
        file.seek(SeekFrom::Start(begin))?;
        sent.store(begin, Ordering::Relaxed);
        Ok(FileBody { file, left: size.saturating_sub(begin), sent: Arc::clone(sent) })
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = self.left.min(PIECE);
        let mut piece = Vec::new();
        Poll::Ready(Some(match (&mut self.file).take(most).read_to_end(&mut piece) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.left -= n as u64;
                self.sent.fetch_add(n as u64, Ordering::Relaxed);
                Ok(Frame::data(piece.into()))
            }
            Err(e) => Err(e),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
