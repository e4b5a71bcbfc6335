//! A body that goes on as long as somebody makes pieces of it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc::Receiver;

#[derive(Debug)]
pub(crate) struct Chunks {
    chunks: Receiver<Bytes>,
}

impl Chunks {
    pub(crate) fn new(chunks: Receiver<Bytes>) -> Self {
        Self { chunks }
    }
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
