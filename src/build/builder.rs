//! The way from a request to an image.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::cache::{Cache, Key, Record};
use super::error::{Error, Problem};
use super::expand::Expander;
use super::instruction::{Instruction, Kind};
use super::lines::{Source, known_frontend};
use super::parse::{self, Dockerfile};
use super::request::ContextSource;
use super::runner::Runner;
use super::scope::{self, Arguments};
use super::scratch::Scratch;
use super::stage::Stages;
use super::state::State;
use super::transfer::Transfer;
use super::{BuildEvent, BuildRequest};
use crate::images::{Digest, Image, Reference, Store, Writable, architecture};

/// Builds what `request` asks for, tells `progress` what happens, and puts the image into `store`.
///
/// RUN steps need root and a tokio runtime; everything else is done by the calling thread. An image that was built
/// before is found without starting or mounting anything.
pub async fn build(request: &BuildRequest, store: &Store, progress: &dyn Fn(BuildEvent)) -> Result<Image, Error> {
    let name = request.dockerfile_name.display().to_string();
    let source = Source::new(&name, &request.dockerfile);
    let (file, warnings) = read(request)?;
    for message in warnings {
        progress(BuildEvent::Warning { message });
    }
    let tags = request.tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>, _>>()?;
    let lease = store.lease()?;
    let escape = file.escape;
    let stages = Stages::new(file);
    let target = stages.target(request.target.as_deref())?;
    let mut builder = Builder {
        request,
        store,
        progress,
        source,
        escape,
        built: vec![None; stages.stages.len()],
        stages,
        globals: Arguments::default(),
        target,
        cache: Cache::open(&request.lib)?,
        scratch: OnceCell::new(),
        runner: Runner::default(),
        step: Cell::new(0),
        afresh: Cell::new(request.no_cache),
        total: 0,
    };
    let result = builder.run(&tags).await;
    let ended = std::mem::take(&mut builder.runner).end().await;
    drop(lease);
    let image = result?;
    ended?;
    Ok(image)
}

/// A build under way.
pub(crate) struct Builder<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) store: &'a Store,
    pub(crate) progress: &'a dyn Fn(BuildEvent),
    source: Source<'a>,
    pub(crate) escape: char,
    pub(crate) stages: Stages,
    /// The stages built so far.
    pub(crate) built: Vec<Option<State>>,
    /// ARGs before the first FROM.
    globals: Arguments,
    target: usize,
    cache: Cache,
    scratch: OnceCell<Scratch>,
    pub(crate) runner: Runner,
    /// Number of the step under way.
    pub(crate) step: Cell<usize>,
    /// Whether its stage takes no earlier results.
    afresh: Cell<bool>,
    total: usize,
}

impl Builder<'_> {
    async fn run(&mut self, tags: &[Reference]) -> Result<Image, Error> {
        self.set_globals()?;
        let needed = self.stages.needed(self.target, |text| self.base_name(text).unwrap_or_default());
        self.total = needed.iter().map(|index| self.steps_of(*index)).sum();
        for index in needed {
            self.stage(index).await?;
        }
        let state = self.built[self.target].take().ok_or_else(|| Problem::new("the target stage was not built"))?;
        self.finish(state, tags)
    }

    /// Instructions of a stage that take time and are told about.
    fn steps_of(&self, index: usize) -> usize {
        let told = |instruction: &&Instruction| is_told(&instruction.kind);
        1 + self.stages.stages[index].instructions.iter().filter(told).count()
    }

    fn set_globals(&mut self) -> Result<(), Error> {
        let platform = scope::platform(&self.stages.stages[self.target].label(self.target));
        let mut globals = Arguments::default();
        for (name, value) in platform {
            let value = self.request.args.get(&name).cloned().unwrap_or(value);
            globals.set(&name, Some(value));
        }
        for instruction in &self.stages.globals {
            let Kind::Arg(args) = &instruction.kind else { continue };
            for (name, default) in args {
                let given = self.request.args.get(name).cloned();
                let value = match (given, default) {
                    (Some(given), _) => Some(given),
                    (None, Some(default)) => {
                        let expanded = scope::word(&mut scope::expander(self.escape, &[], &globals), default);
                        Some(expanded.map_err(|problem| problem.at(self.source.place(instruction.line)))?)
                    }
                    (None, None) => globals.get(name).cloned(),
                };
                globals.set(name, value);
            }
        }
        self.globals = globals;
        Ok(())
    }

    fn base_name(&self, text: &str) -> Result<String, Problem> {
        let mut expander = Expander::new(self.escape, |name| self.globals.get(name).cloned());
        let name = scope::word(&mut expander, text)?;
        if name.is_empty() {
            let unset: Vec<&str> = expander.unset.iter().map(String::as_str).collect();
            let hint = format!("declare `ARG {}` with a default before the first FROM", unset.join(" "));
            return Err(Problem::new(format!("`FROM {text}` names no image once expanded")).hint(hint));
        }
        Ok(name)
    }

    async fn stage(&mut self, index: usize) -> Result<(), Error> {
        if self.built[index].is_some() {
            return Ok(());
        }
        let stage = self.stages.stages[index].clone();
        let place = self.source.place(stage.line);
        let begun = self.begin(index, &stage.text);
        let base = self.base_name(&stage.from.image).map_err(|problem| Error::from(problem).at(&place))?;
        if self.stages.find_base(&base, index).is_none() {
            self.fetch(&base).await.map_err(|error| error.at(&place))?;
        }
        let mut state = self.base(index).map_err(|error| error.at(&place))?;
        self.end(begun, true);
        let label = stage.label(index);
        let named = self.request.no_cache_filter.iter().any(|name| name.eq_ignore_ascii_case(&label));
        let outer = self.afresh.replace(self.request.no_cache || named);
        let triggers = std::mem::take(&mut state.config.config.on_build);
        for trigger in &triggers {
            let instruction = parse::trigger(trigger, stage.line).map_err(|problem| problem.at(place.clone()))?;
            self.instruction(index, &mut state, &instruction).await?;
        }
        for instruction in &stage.instructions {
            self.instruction(index, &mut state, instruction).await?;
        }
        self.afresh.set(outer);
        self.built[index] = Some(state);
        Ok(())
    }

    /// What a stage starts from.
    fn base(&self, index: usize) -> Result<State, Error> {
        let from = &self.stages.stages[index].from;
        if let Some(platform) = &from.platform {
            let platform = self.base_name(platform)?;
            let own = platform.split('/').nth(1).is_some_and(|known| known == architecture());
            if !own {
                let hint = format!("images are built for linux/{} here", architecture());
                return Err(Problem::new(format!("the platform `{platform}` can't be built")).hint(hint).into());
            }
        }
        let name = self.base_name(&from.image)?;
        match self.request.additional_contexts.get(&name) {
            Some(ContextSource::Image(image)) => return Ok(State::image(&self.image(image)?)),
            Some(ContextSource::Directory(_)) => {
                let hint = format!("write FROM scratch and COPY --from={name} . /");
                return Err(Problem::new(format!("the context `{name}` is a directory, not an image"))
                    .hint(hint)
                    .into());
            }
            None => {}
        }
        if let Some(base) = self.stages.find_base(&name, index) {
            let base = self.built[base].as_ref().map(State::stage);
            return Ok(base.ok_or_else(|| Problem::new(format!("the stage `{name}` is not built yet")))?);
        }
        if name == "scratch" {
            return Ok(State::scratch());
        }
        Ok(State::image(&self.image(&name)?))
    }

    async fn instruction(&mut self, index: usize, state: &mut State, step: &Instruction) -> Result<(), Error> {
        let place = self.source.place(step.line);
        // The stages that an image's ONBUILD asks for are not known before.
        for name in step.kind.origins() {
            if let Some(stage) = self.stages.find(name, index) {
                Box::pin(self.stage(stage)).await?;
            } else {
                self.fetch(name).await.map_err(|error| error.at(&place))?;
            }
        }
        let begun = is_told(&step.kind).then(|| self.begin(index, &step.text));
        let done = self.execute(index, state, step).await.map_err(|error| error.at(&place));
        let cached = done?;
        if let Some(begun) = begun {
            self.end(begun, cached);
        }
        Ok(())
    }

    async fn execute(&mut self, index: usize, state: &mut State, step: &Instruction) -> Result<bool, Error> {
        match &step.kind {
            Kind::Copy(copy) => {
                let transfer = Transfer::new(copy, state, self.escape)?;
                let origin = self.origin(copy.from.as_deref(), index)?;
                self.transfer(state, &transfer, origin, &step.text)
            }
            Kind::Workdir(path) => {
                let path = scope::word(&mut scope::expander(self.escape, &state.config.config.env, &state.args), path)?;
                self.workdir(state, &path, &step.text)
            }
            Kind::Run(run) => {
                let place = self.source.place(step.line);
                self.execute_run(index, state, run, &step.text, &place).await
            }
            Kind::Arg(args) => {
                self.declare(state, args)?;
                state.commit(&step.text, None, None);
                Ok(true)
            }
            kind => {
                state.configure(kind, self.escape)?;
                state.commit(&step.text, None, None);
                Ok(true)
            }
        }
    }

    fn declare(&self, state: &mut State, args: &[(String, Option<String>)]) -> Result<(), Error> {
        for (name, default) in args {
            let value = match (self.request.args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let mut expander = scope::expander(self.escape, &state.config.config.env, &state.args);
                    Some(scope::word(&mut expander, default)?)
                }
                (None, None) => self.globals.get(name).or_else(|| state.args.get(name)).cloned(),
            };
            state.args.set(name, value);
        }
        Ok(())
    }

    fn begin(&self, index: usize, text: &str) -> Instant {
        self.step.set(self.step.get() + 1);
        (self.progress)(BuildEvent::Started {
            step: self.step.get(),
            total: self.total.max(self.step.get()),
            stage: self.stages.stages[index].label(index),
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        });
        Instant::now()
    }

    fn end(&self, begun: Instant, cached: bool) {
        (self.progress)(BuildEvent::Finished { step: self.step.get(), cached, elapsed: begun.elapsed() });
    }

    /// The scratch folder, made when first needed.
    pub(crate) fn scratch(&self) -> Result<&Scratch, Error> {
        if let Some(scratch) = self.scratch.get() {
            return Ok(scratch);
        }
        let made = Scratch::new(&self.request.lib.join("build/tmp"))?;
        Ok(self.scratch.get_or_init(|| made))
    }

    /// An earlier result, unless the caller wants none.
    pub(crate) fn earlier(&self, key: &Digest) -> Option<Record> {
        if self.afresh.get() { None } else { self.cache.get(key) }
    }

    /// Takes an earlier result under one of `keys`; true if there was one.
    pub(crate) fn take_earlier(&self, state: &mut State, keys: &[Digest], text: &str) -> Result<bool, Error> {
        let Some(record) = keys.iter().find_map(|key| self.earlier(key)) else { return Ok(false) };
        for key in keys.iter().filter(|_| keys.len() > 1) {
            self.cache.put(key, &record)?;
        }
        state.commit(text, Some(record.created), record.layer());
        Ok(true)
    }

    /// Turns what was written into `upper` into a layer, and remembers it under `keys`.
    pub(crate) fn keep(
        &self,
        state: &mut State,
        keys: &[Digest],
        upper: &std::path::Path,
        text: &str,
    ) -> Result<(), Error> {
        let parents: Vec<Digest> = state.layers.iter().map(|layer| layer.diff_id).collect();
        let layer = self.store.add_layer_from_upper(&parents, upper)?;
        let record = Record::new(layer.as_ref());
        for key in keys {
            self.cache.put(key, &record)?;
        }
        state.commit(text, Some(record.created), layer);
        Ok(())
    }

    /// Lets `work` write into the stage's root, unless an earlier result fits one of `keys`; true if one did.
    pub(crate) fn change(
        &self,
        state: &mut State,
        keys: &[Digest],
        text: &str,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        if self.take_earlier(state, keys, text)? {
            return Ok(true);
        }
        let pair = self.scratch()?.upper()?;
        let writable = Writable { upper: &pair.upper, work: &pair.work, volatile: true };
        let rootfs = self.store.rootfs(&state.as_image(), Some(writable))?;
        work(rootfs.mount.as_fd())?;
        drop(rootfs);
        self.keep(state, keys, &pair.upper, text)?;
        Ok(false)
    }

    /// Stores the image. Its times are those of an earlier build with the same result.
    fn finish(&self, state: State, tags: &[Reference]) -> Result<Image, Error> {
        let mut config = state.config;
        config.config.labels.extend(self.request.labels.clone());
        let mut key = Key::new("image");
        key.layers(&state.layers);
        let text = serde_json::to_vec(&(&config.config, &config.author));
        key.add(&text.map_err(|e| Error::io("write the image's configuration", "")(e.into()))?);
        for entry in &config.history {
            key.list(&[entry.created_by.as_bytes(), &[u8::from(entry.empty_layer)]]);
            key.text(&entry.created.map(|time| time.to_string()).unwrap_or_default());
        }
        let key = key.finish();
        let record = if let Some(record) = self.earlier(&key) {
            record
        } else {
            let record = Record::new(None);
            self.cache.put(&key, &record)?;
            record
        };
        config.created = Some(record.created);
        for entry in &mut config.history {
            entry.created.get_or_insert(record.created);
        }
        let image = self.store.put_image(&config, &state.layers, tags)?;
        let names = tags.iter().map(Reference::familiar).collect();
        (self.progress)(BuildEvent::Exported { id: image.id.to_string(), names });
        Ok(image)
    }
}

impl Kind {
    /// Names of stages, images or contexts that an instruction reads from.
    fn origins(&self) -> Vec<&str> {
        match self {
            Self::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            Self::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
            _ => Vec::new(),
        }
    }
}

fn is_told(kind: &Kind) -> bool {
    matches!(kind, Kind::Run(_) | Kind::Copy(_) | Kind::Workdir(_))
}

/// Reads the Dockerfile that `request` is about; also what works but should be changed.
fn read(request: &BuildRequest) -> Result<(Dockerfile, Vec<String>), Error> {
    if let Some(syntax) = request.args.get("BUILDKIT_SYNTAX") {
        known_frontend(syntax)?;
    }
    let file = Dockerfile::parse(&request.dockerfile_name.display().to_string(), &request.dockerfile)?;
    let declared = |name: &String| {
        file.instructions.iter().any(|instruction| match &instruction.kind {
            Kind::Arg(args) => args.iter().any(|(known, _)| known == name),
            _ => false,
        })
    };
    let ours = |name: &String| scope::is_proxy(name) || name.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH";
    let unused = request.args.keys().filter(|name| !ours(name) && !declared(name));
    let unused =
        unused.map(|name| format!("the build argument `{name}` is not used: the Dockerfile has no `ARG {name}`"));
    let warnings = file.warnings.iter().map(ToString::to_string).chain(unused).collect();
    Ok((file, warnings))
}

/// Looks over what `request` asks for and builds nothing: what works but should be changed.
pub fn check(request: &BuildRequest) -> Result<Vec<String>, Error> {
    let (file, warnings) = read(request)?;
    Stages::new(file).target(request.target.as_deref())?;
    Ok(warnings)
}
