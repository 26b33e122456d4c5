//! Where COPY and mounts take their files from.

use std::path::PathBuf;

use super::BuildEvent;
use super::builder::Builder;
use super::error::{Error, Problem};
use super::event::Stream;
use super::ignore::Ignore;
use super::request::{ContextSource, Pull};
use super::state::State;
use super::tree::Tree;
use crate::images::{Image, Layer, LayerState, PullEvent, PullOptions, Reference};

/// A place to read from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// The build context.
    Context,
    /// An additional context that is a directory.
    Directory(PathBuf, String),
    /// The layers of a stage or image, and what to call it.
    Layers(Box<Image>, String),
}

impl Origin {
    /// The layers, if they say all about the content.
    pub(crate) fn layers(&self) -> Option<&[Layer]> {
        match self {
            Self::Layers(image, _) => Some(&image.layers),
            Self::Context | Self::Directory(..) => None,
        }
    }
}

impl Builder<'_> {
    /// What `--from=name` means in the stage with number `before`; the stage behind it was built already.
    pub(crate) fn origin(&self, name: Option<&str>, before: usize) -> Result<Origin, Error> {
        let Some(name) = name else { return Ok(Origin::Context) };
        match self.request.additional_contexts.get(name) {
            Some(ContextSource::Directory(path)) => {
                return Ok(Origin::Directory(path.clone(), format!("the context `{name}`")));
            }
            Some(ContextSource::Image(image)) => {
                return Ok(Origin::Layers(Box::new(self.image(image)?), format!("the context `{name}`")));
            }
            None => {}
        }
        if let Some(index) = self.stages.find(name, before) {
            let built = self.built[index].as_ref().map(State::as_image);
            let image = built.ok_or_else(|| Problem::new(format!("the stage `{name}` is not built yet")))?;
            return Ok(Origin::Layers(Box::new(image), format!("the stage `{name}`")));
        }
        if name == "scratch" {
            return Ok(Origin::Layers(Box::new(State::scratch().as_image()), "scratch".to_owned()));
        }
        Ok(Origin::Layers(Box::new(self.image(name)?), format!("the image `{name}`")))
    }

    /// Opens a place to read from; an image is mounted for it.
    pub(crate) fn tree(&self, origin: &Origin) -> Result<Tree, Error> {
        match origin {
            Origin::Context => {
                let Some(context) = &self.request.context else {
                    let hint = "give a directory as context, or take the file from a stage or image by --from";
                    return Err(Problem::new("the build has no context to copy from").hint(hint).into());
                };
                Tree::directory(context, "the build context".to_owned(), self.ignore()?)
            }
            Origin::Directory(path, name) => {
                Tree::directory(path, name.clone(), ignore_file(&path.join(".dockerignore"))?)
            }
            Origin::Layers(image, name) => {
                let rootfs = self.store.rootfs(image, None)?;
                Ok(Tree::mounted(rootfs.mount, name.clone()))
            }
        }
    }

    /// `<Dockerfile>.dockerignore`, or else the context's own.
    fn ignore(&self) -> Result<Ignore, Error> {
        let mut own = self.request.dockerfile_name.clone().into_os_string();
        own.push(".dockerignore");
        let own = PathBuf::from(own);
        let context = self.request.context.as_ref();
        // A relative name is the user's way to write it, from wherever that was: only the context's copy is certain.
        let own = if own.is_absolute() { Some(own) } else { context.map(|context| context.join(own)) };
        if let Some(own) = own.filter(|own| own.is_file()) {
            return ignore_file(&own);
        }
        context.map_or_else(|| Ok(Ignore::default()), |context| ignore_file(&context.join(".dockerignore")))
    }

    /// Brings an image into the store that is to be taken from a registry.
    pub(crate) async fn fetch(&self, name: &str) -> Result<(), Error> {
        let (name, ours) = match self.request.additional_contexts.get(name) {
            Some(ContextSource::Image(image)) => (image.as_str(), true),
            Some(ContextSource::Directory(_)) => return Ok(()),
            None => (name, false),
        };
        let Some(registries) = &self.request.registries else { return Ok(()) };
        let there = name == "scratch"
            || self.store.find(name)?.is_some_and(|image| image.host || ours || self.request.pull != Pull::Always);
        if there || self.request.pull == Pull::Never {
            return Ok(());
        }
        let (step, stream) = (self.step.get(), Stream::Out);
        let tell = |event| {
            if let PullEvent::Layer { digest, state: LayerState::Done } = event {
                let line = format!("pulled layer {}", digest.short());
                (self.progress)(BuildEvent::Output { step, stream, line });
            }
        };
        self.store.pull(registries, &Reference::parse(name)?, &PullOptions::default(), &tell).await?;
        Ok(())
    }

    /// An image of the store.
    pub(crate) fn image(&self, name: &str) -> Result<Image, Error> {
        let image = self.store.find(name)?.ok_or_else(|| {
            let hint = format!(
                "get it by `stack pull {name}`, `docker save {name} | stack image load`, or `stack image import`"
            );
            Problem::new(format!("the image `{name}` is not in the store")).hint(hint)
        })?;
        if image.host {
            let hint = "start from `scratch` or an image";
            let message = "nothing can be built on `stack/host`: it is this machine's own /usr, and the result would run nowhere else";
            return Err(Problem::new(message).hint(hint).into());
        }
        Ok(image)
    }
}

fn ignore_file(path: &std::path::Path) -> Result<Ignore, Error> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Ignore::parse(&path.display().to_string(), &text)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Ignore::default()),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}
