//! What a snapshot carries while it travels: bytes in memory, or a file that is made when the first of them is asked for.

use std::fs::File;
use std::future::Future;
use std::io;
use std::io::Cursor;
use std::io::SeekFrom;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncSeek;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::task::JoinHandle;

/// Makes the file. Blocks on the disk.
type Make = Box<dyn FnOnce() -> io::Result<File> + Send>;

/// See the file's header.
pub struct Content {
    medium: Medium,
    /// Where it is to be read from, once it is there.
    seek: Option<SeekFrom>,
}

enum Medium {
    Memory(Cursor<Vec<u8>>),
    ToBeMade(Option<Make>),
    BeingMade(JoinHandle<io::Result<File>>),
    File(tokio::fs::File),
}

impl Content {
    /// These bytes.
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self { medium: Medium::Memory(Cursor::new(bytes)), seek: None }
    }

    /// A file, made when it is first read: most snapshots never travel.
    pub(super) fn made_by(make: impl FnOnce() -> io::Result<File> + Send + 'static) -> Self {
        Self { medium: Medium::ToBeMade(Some(Box::new(make))), seek: None }
    }

    /// This file.
    pub(super) fn file(file: File) -> Self {
        Self { medium: Medium::File(tokio::fs::File::from_std(file)), seek: None }
    }

    /// All of it, for whoever reads it without waiting.
    pub(super) async fn into_reader(self) -> io::Result<Box<dyn io::Read + Send>> {
        match self.medium {
            Medium::Memory(mut cursor) => {
                cursor.set_position(0);
                Ok(Box::new(cursor))
            }
            Medium::File(file) => {
                let mut file = file.into_std().await;
                file.sync_all()?;
                io::Seek::rewind(&mut file)?;
                Ok(Box::new(io::BufReader::new(file)))
            }
            Medium::ToBeMade(Some(make)) => {
                let mut file = tokio::task::spawn_blocking(make).await.map_err(io::Error::other)??;
                io::Seek::rewind(&mut file)?;
                Ok(Box::new(io::BufReader::new(file)))
            }
            Medium::ToBeMade(None) | Medium::BeingMade(_) => Err(io::Error::other("it was not received")),
        }
    }

    fn opened(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut dyn Carries>> {
        if let Medium::ToBeMade(make) = &mut self.medium
            && let Some(make) = make.take()
        {
            self.medium = Medium::BeingMade(tokio::task::spawn_blocking(make));
        }
        if let Medium::BeingMade(making) = &mut self.medium {
            let made = ready!(Pin::new(making).poll(context)).map_err(io::Error::other)??;
            self.medium = Medium::File(tokio::fs::File::from_std(made));
        }
        match &mut self.medium {
            Medium::Memory(cursor) => Poll::Ready(Ok(cursor)),
            Medium::File(file) => Poll::Ready(Ok(file)),
            Medium::ToBeMade(_) | Medium::BeingMade(_) => Poll::Ready(Err(io::Error::other("making it failed before"))),
        }
    }
}

trait Carries: AsyncRead + AsyncWrite + AsyncSeek + Unpin {}
impl<T: AsyncRead + AsyncWrite + AsyncSeek + Unpin> Carries for T {}

impl AsyncRead for Content {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.opened(context))?).poll_read(context, buffer)
    }
}

impl AsyncWrite for Content {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(ready!(self.opened(context))?).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.opened(context))?).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.opened(context))?).poll_shutdown(context)
    }
}

impl AsyncSeek for Content {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        match &mut self.medium {
            Medium::Memory(cursor) => Pin::new(cursor).start_seek(position),
            Medium::File(file) => Pin::new(file).start_seek(position),
            Medium::ToBeMade(_) | Medium::BeingMade(_) => {
                self.seek = Some(position);
                Ok(())
            }
        }
    }

    fn poll_complete(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        ready!(self.opened(context))?;
        let seek = self.seek.take();
        let mut carrier = Pin::new(ready!(self.opened(context))?);
        if let Some(position) = seek {
            carrier.as_mut().start_seek(position)?;
        }
        carrier.poll_complete(context)
    }
}
