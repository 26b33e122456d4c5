//! A request to a project's supervisor, its events shown as progress.

use std::io::{self, IsTerminal};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::error::Error;
use super::progress::{FRAME, Progress};
use super::project::Context;
use super::select::is_up;
use super::terminal;
use super::verb::plan::dry_run;
use crate::engine::client::Client;
use crate::engine::control::{self, Reply, Request};
use crate::engine::rootfs::Root;
use crate::engine::state::Container;

/// Carries out `request`, starting a supervisor where none runs, and shows its events. `Exited` gives a code. With
/// `--dry-run` it only shows what would be done.
pub(crate) async fn carry_out(
    context: &Context,
    project: &str,
    request: &Request,
    title: &'static str,
) -> Result<i32, Error> {
    if context.global.dry_run {
        return dry_run(context, project, request).await.map(|()| 0);
    }
    let client = open(context, project, request, &[]).await?;
    let mut progress = Progress::new(context.ui, title);
    let result = follow(&client, &mut progress).await;
    progress.finish()?;
    result
}

/// Brings a project up by `carry`; where data would be lost, the user is asked first.
pub(crate) async fn with_consent<T>(
    mut up: control::Up,
    mut carry: impl AsyncFnMut(control::Up) -> Result<T, Error>,
) -> Result<T, Error> {
    let outcome = carry(up.clone()).await;
    match outcome {
        Err(error) if error.asks() && io::stdin().is_terminal() => {
            if !terminal::agreed(&format!("{}\nGo on?", error.message()))? {
                return Err(Error::new("nothing was changed"));
            }
            up.yes = true;
            carry(up).await
        }
        other => other,
    }
}

/// Hands `request` to the project's supervisor, starting it where none runs.
pub(crate) async fn open(
    context: &Context,
    project: &str,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<Client, Error> {
    Client::open(&context.paths, project, request, fds)
        .await
        .map_err(|e| Error::new(format!("cannot reach the supervisor of project `{project}`: {e}")))
}

/// A container's files: `alone`, or with all that is mounted in it.
pub(crate) async fn root_of(context: &Context, container: &Container, alone: bool) -> Result<Root, Error> {
    let record = &container.record;
    if is_up(container) {
        let root = if alone { Root::of_running_alone(container) } else { Root::of_running(container) };
        return root.map_err(|e| Error::from(e).context(format!("cannot open the files of `{}`", record.name)));
    }
    let request = Request::Root { container: record.id.clone(), alone };
    let client = open(context, &record.project, &request, &[]).await?;
    match reply(&client).await? {
        (Reply::Failed(failure), _) => Err(failure.into()),
        (reply, fds) => Root::received(&reply, fds).ok_or_else(|| lost(io::ErrorKind::InvalidData.into())),
    }
}

/// The next reply, which must come.
pub(crate) async fn reply(client: &Client) -> Result<(Reply, Vec<OwnedFd>), Error> {
    client.next().await.map_err(lost)?.ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))
}

/// Shows events until the request is carried out.
pub(crate) async fn follow(client: &Client, progress: &mut Progress) -> Result<i32, Error> {
    loop {
        tokio::select! {
            next = reply(client) => match next?.0 {
                Reply::Event(event) => progress.event(&event)?,
                Reply::Exited { code } => return Ok(code),
                Reply::Done => return Ok(0),
                Reply::Failed(failure) => return Err(failure.into()),
                Reply::Accepted | Reply::Started { .. } | Reply::Root { .. } | Reply::Plan(_) => {}
            },
            () = frame(progress.is_live()) => progress.tick()?,
        }
    }
}

/// Returns when it is time to redraw; never where nothing is redrawn.
pub(crate) async fn frame(live: bool) {
    if live { tokio::time::sleep(FRAME).await } else { std::future::pending().await }
}

/// The error for a supervisor that went away in the middle.
fn lost(error: io::Error) -> Error {
    // Not the caller's own broken pipe, so no success.
    Error::new(format!("the connection to the stack's supervisor was lost: {error}"))
        .hint("the containers go on; run the same command again")
}
