//! Pulls and pushes as the user sees them: images and their layers as progress.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::Instant;

use super::error::Error;
use super::prepare;
use super::progress::{Progress, Stage};
use super::project::{self, Context, require_root};
use super::session::frame;
use super::ui::{ProgressMode, Ui};
use super::verb::image::size;
use crate::images::{self, Digest, LayerState, PullEvent, PullOptions, Pulled, Reference, Registries, Settings, Store};
use crate::spec::Loaded;

/// The registries as this user reaches them.
pub(crate) fn registries() -> Result<Registries, Error> {
    Ok(Registries::new(Settings::from_environment(&project::environment())?)?)
}

/// Flags of `pull` and `push` about which services' images, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Chosen {
    /// Services (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Also those that the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Show nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl Chosen {
    /// The project, and the services chosen of it.
    pub(crate) fn load(&self, context: &Context) -> Result<(Loaded, BTreeSet<String>), Error> {
        let loaded = context.load(&self.services)?;
        require_root()?;
        let chosen = prepare::selected(&loaded, &self.services, !self.include_deps)?;
        Ok((loaded, chosen))
    }
}

/// An image to pull.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: Reference,
    pub(crate) options: PullOptions,
}

/// Pulls images side by side, shown as progress: what became of each.
pub(crate) async fn pull(
    ui: Ui,
    quiet: bool,
    store: &Store,
    wanted: Vec<Wanted>,
) -> Result<Vec<Result<Pulled, images::Error>>, Error> {
    let registries = registries()?;
    let view = View::new(ui, quiet, "pull", ["Pulling", "Pulled"]);
    let ids: Vec<String> = wanted.iter().map(|image| format!("Image {}", image.name.familiar())).collect();
    let images: Vec<_> = wanted.into_iter().map(|image| (image.name, image.options)).collect();
    for id in &ids {
        view.step(id, Stage::Working, "Pulling")?;
    }
    let show = |at: usize, event: PullEvent| {
        // A standard error that is closed takes nothing away from the pull.
        let _ = match event {
            PullEvent::Pulled { up_to_date: true } => view.step(&ids[at], Stage::Done, "Up to date"),
            PullEvent::Pulled { .. } => view.step(&ids[at], Stage::Done, "Pulled"),
            PullEvent::Failed => view.step(&ids[at], Stage::Failed, "Failed"),
            event => view.event(&event),
        };
    };
    let pulling = store.pull_all(&registries, &images, &show);
    let pulled = view.watch(pulling).await?;
    view.end(ui)?;
    Ok(pulled)
}

/// Pushes an image, shown as progress: the digest of its manifest.
pub(crate) async fn push(ui: Ui, quiet: bool, store: &Store, name: &Reference) -> Result<Digest, Error> {
    let registries = registries()?;
    let view = View::new(ui, quiet, "push", ["Pushing", "Pushed"]);
    let id = format!("Image {}", name.familiar());
    view.step(&id, Stage::Working, "Pushing")?;
    let show = |event| drop(view.event(&event));
    let pushing = store.push(&registries, name, &show);
    let pushed = view.watch(pushing).await?;
    let (stage, text) = if pushed.is_ok() { (Stage::Done, "Pushed") } else { (Stage::Failed, "Failed") };
    view.step(&id, stage, text)?;
    view.end(ui)?;
    pushed.map_err(|error| Error::from(error).context(format!("cannot push `{}`", name.familiar())))
}

/// What is shown while layers come or go.
struct View {
    progress: RefCell<Progress>,
    warnings: RefCell<Vec<String>>,
    layers: RefCell<HashMap<Digest, Rate>>,
    /// What is done to a layer, and has been done.
    words: [&'static str; 2],
}

/// How fast a layer is.
#[derive(Clone, Copy)]
struct Rate {
    begun: Instant,
    /// Bytes that were there at first.
    first: u64,
    total: u64,
}

impl View {
    fn new(ui: Ui, quiet: bool, title: &'static str, words: [&'static str; 2]) -> View {
        let progress = if quiet { ProgressMode::Quiet } else { ui.progress };
        View {
            progress: RefCell::new(Progress::new(Ui { progress, ..ui }, title)),
            warnings: RefCell::default(),
            layers: RefCell::default(),
            words,
        }
    }

    fn step(&self, id: &str, stage: Stage, text: &str) -> io::Result<()> {
        self.progress.borrow_mut().step(id, stage, text)
    }

    /// Redraws while something goes on.
    async fn watch<T>(&self, work: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(work);
        loop {
            let live = self.progress.borrow().is_live();
            tokio::select! {
                done = &mut work => return Ok(done),
                () = frame(live) => self.progress.borrow_mut().tick()?,
            }
        }
    }

    fn end(&self, ui: Ui) -> io::Result<()> {
        self.progress.borrow_mut().finish()?;
        self.warnings.borrow().iter().try_for_each(|warning| ui.warn(warning))
    }

    fn event(&self, event: &PullEvent) -> io::Result<()> {
        let (digest, state) = match event {
            PullEvent::Warning(text) => {
                self.warnings.borrow_mut().push(text.clone());
                return Ok(());
            }
            PullEvent::Layer { digest, state } => (digest, state),
            PullEvent::Pulled { .. } | PullEvent::Failed => return Ok(()),
        };
        let id = format!("  {}", digest.short());
        let [doing, done_word] = self.words;
        match state {
            LayerState::Waiting => self.progress.borrow_mut().live(&id, "Waiting"),
            LayerState::Elsewhere => self.step(&id, Stage::Working, "Waiting for another pull of the same layer"),
            LayerState::Packing => self.progress.borrow_mut().live(&id, "Compressing"),
            LayerState::Unpacking => self.progress.borrow_mut().live(&id, "Unpacking"),
            LayerState::Retrying(why) => self.step(&id, Stage::Working, &format!("Retrying: {why}")),
            LayerState::Exists => self.step(&id, Stage::Done, "Already there"),
            LayerState::Done => {
                let rate = self.layers.borrow().get(digest).copied();
                let text = rate.map_or(done_word.to_owned(), |rate| format!("{done_word} {}", size(rate.total)));
                self.step(&id, Stage::Done, &text)
            }
            LayerState::Transferring { done, total } => {
                let (done, total) = (*done, *total);
                let fresh = Rate { begun: Instant::now(), first: done, total };
                let known = self.layers.borrow().get(digest).copied();
                if known.is_none() {
                    self.layers.borrow_mut().insert(*digest, fresh);
                    let before = if done > 0 { format!(", {} from before", size(done)) } else { String::new() };
                    return self.step(&id, Stage::Working, &format!("{doing} {}{before}", size(total)));
                }
                let text = known.unwrap_or(fresh).text(done);
                self.progress.borrow_mut().live(&id, &format!("{doing} {text}"))
            }
        }
    }
}

impl Rate {
    /// `[=====>    ] 12MB/34MB 5MB/s 4s left`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "two digits are shown"
    )]
    fn text(&self, done: u64) -> String {
        const WIDTH: u64 = 10;
        let filled = done * WIDTH / self.total.max(1);
        let mark = |at: u64| match at.cmp(&filled) {
            Ordering::Less => '=',
            Ordering::Equal => '>',
            Ordering::Greater => ' ',
        };
        let bar: String = (0..WIDTH).map(mark).collect();
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = done.saturating_sub(self.first) as f64 / seconds.max(0.001);
        let left = self.total.saturating_sub(done) as f64 / rate.max(1.0);
        let left = if seconds > 1.0 && left < 36_000.0 { format!(" {left:.0}s left") } else { String::new() };
        format!("[{bar}] {}/{} {}/s{left}", size(done), size(self.total), size(rate as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bar_shows_share_rate_and_time_left() {
        let begun = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let text = Rate { begun, first: 0, total: 100_000_000 }.text(50_000_000);
        assert!(text.starts_with("[=====>    ] 50MB/100MB 2"), "{text}");
        assert!(text.ends_with(" 2s left"), "{text}");
        assert!(Rate { begun, first: 0, total: 0 }.text(0).starts_with('['));
    }
}
