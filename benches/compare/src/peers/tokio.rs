use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_util::SinkExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::codec::{Framed, LinesCodec};

use super::Service;
use crate::protocol::{
    ANONYMOUS, ARRIVED, GREETING, HINT, WELCOME, command, is_bye, name, reply, saying, without_cr,
};

/// A task for each connection, all on one thread.
fn serve<S, F>(port: u16, session: S) -> io::Result<()>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    serve_on(Builder::new_current_thread().enable_io().build()?, port, session)
}

/// The same, and the tasks are shared out among two threads that steal them from each other.
fn serve_on_two<S, F>(port: u16, session: S) -> io::Result<()>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    serve_on(Builder::new_multi_thread().worker_threads(2).enable_io().build()?, port, session)
}

fn serve_on<S, F>(runtime: Runtime, port: u16, session: S) -> io::Result<()>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        super::ready(listener.local_addr()?.port())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(session(stream));
        }
    })
}

/// Framing by hand: buffers of its own, and one write for all lines of a read.
pub(super) fn serve_by_hand(_: Service, port: u16) -> io::Result<()> {
    serve(port, by_hand)
}

pub(super) fn serve_threaded(_: Service, port: u16) -> io::Result<()> {
    serve_on_two(port, by_hand)
}

async fn by_hand(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(GREETING.as_bytes()).await?;
    let mut input = Vec::with_capacity(1024);
    let mut output = Vec::new();
    loop {
        let ended = stream.read_buf(&mut input).await? == 0;
        let filled = input.len() == input.capacity();
        if ended && !input.is_empty() {
            input.push(b'\n');
        }
        output.clear();
        let (mut start, mut bye) = (0, ended);
        for end in memchr::memchr_iter(b'\n', &input) {
            let line = without_cr(&input[start..end]);
            reply(line, &mut output);
            start = end + 1;
            if is_bye(line) {
                bye = true;
                break;
            }
        }
        input.drain(..start);
        if filled {
            // It has more to say at once than there is room for.
            input.reserve(2 * input.capacity());
        }
        stream.write_all(&output).await?;
        if bye {
            return Ok(());
        }
    }
}

/// The framing of tokio-util, as its documentation shows it.
pub(super) fn serve_lines_codec(_: Service, port: u16) -> io::Result<()> {
    serve(port, |stream| async { lines_codec(stream).await.map_err(io::Error::other) })
}

pub(super) fn serve_lines_threaded(_: Service, port: u16) -> io::Result<()> {
    serve_on_two(port, |stream| async { lines_codec(stream).await.map_err(io::Error::other) })
}

async fn lines_codec(stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut framed = Framed::new(stream, LinesCodec::new());
    framed.send(GREETING.trim_end()).await?;
    while let Some(line) = futures_util::StreamExt::next(&mut framed).await {
        let line = line?;
        framed.send(format!("> {}", line.to_uppercase())).await?;
        if is_bye(line.as_bytes()) {
            break;
        }
    }
    Ok(())
}

/// Presence, as the chat examples have it: a broadcast channel, and a task for each listener.
pub(super) fn serve_broadcast(_: Service, port: u16) -> io::Result<()> {
    let (room, _) = broadcast::channel::<Arc<str>>(4096);
    serve(port, move |stream| presence(stream, room.clone()))
}

pub(super) fn serve_broadcast_threaded(_: Service, port: u16) -> io::Result<()> {
    let (room, _) = broadcast::channel::<Arc<str>>(4096);
    serve_on_two(port, move |stream| presence(stream, room.clone()))
}

async fn presence(mut stream: TcpStream, room: broadcast::Sender<Arc<str>>) -> io::Result<()> {
    let _ = room.send(ARRIVED.into());
    let mut news = room.subscribe();
    let mut me = ANONYMOUS.to_owned();
    let result = listen(&mut stream, &room, &mut news, &mut me).await;
    drop(news);
    let _ = room.send(format!("{me} has left the room.\n").into());
    result
}

async fn listen(
    stream: &mut TcpStream,
    room: &broadcast::Sender<Arc<str>>,
    news: &mut broadcast::Receiver<Arc<str>>,
    me: &mut String,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).split(b'\n');
    writer.write_all(WELCOME.as_bytes()).await?;
    loop {
        tokio::select! {
            line = lines.next_segment() => {
                let Some(line) = line? else { return Ok(()) };
                let (word, rest) = command(without_cr(&line));
                let heard = match word.as_slice() {
                    b"HELLO" => {
                        *me = name(rest);
                        format!("{me} is in the room.\n")
                    }
                    b"SAY" => format!("{me} says: {}\n", saying(rest)),
                    b"BYE" => {
                        let _ = room.send(format!("{me} is about to leave the room.\n").into());
                        while let Ok(text) = news.try_recv() {
                            writer.write_all(text.as_bytes()).await?;
                        }
                        return Ok(());
                    }
                    _ => {
                        writer.write_all(HINT.as_bytes()).await?;
                        continue;
                    }
                };
                let _ = room.send(heard.into());
            }
            text = news.recv() => match text {
                Ok(text) => writer.write_all(text.as_bytes()).await?,
                // It was too slow; others are not to wait for it.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return Ok(()),
            },
        }
    }
}
