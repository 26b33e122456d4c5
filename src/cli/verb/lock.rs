//! `stack lock`.

use std::collections::BTreeMap;
use std::io::Write as _;

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::lock::{self, Lock};
use crate::cli::policy;
use crate::cli::project::{Context, require_root};
use crate::cli::registry;
use crate::images::{Digest, Reference, Store};

/// Write down in `stack.lock` which images the services and their `pre_start` steps use, by digest.
#[derive(Debug, Args)]
pub(crate) struct LockImages {
    /// Don't show the progress of pulls
    #[arg(short, long)]
    quiet: bool,
}

impl LockImages {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let loaded = context.load(&[])?;
        require_root()?;
        let store = Store::open(&context.paths.lib)?;
        let path = lock::path(&loaded);
        // One that can't be read is replaced.
        let before = Lock::read(&path).ok().flatten().map(|lock| lock.images).unwrap_or_default();
        let mut wanted: BTreeMap<Reference, Option<String>> = BTreeMap::new();
        for used in lock::lockable(&loaded.project)? {
            wanted.entry(used.reference).or_insert(used.platform);
        }
        let images = wanted.iter().map(|(name, platform)| policy::wanted(&name.to_string(), platform.as_deref()));
        let pulled = registry::pull(context.ui, self.quiet, &store, images.collect::<Result<_, _>>()?).await?;
        let mut images = BTreeMap::new();
        for (name, result) in wanted.keys().zip(pulled) {
            let digest = match result {
                Ok(pulled) => pulled.digest,
                // One that was never at a registry.
                Err(error) => match store.find(&name.to_string())?.filter(|image| image.sources.is_empty()) {
                    Some(image) => image.digest,
                    None => return Err(Error::from(error).context(format!("cannot lock `{}`", name.familiar()))),
                },
            };
            images.insert(name.to_string(), digest);
        }
        show(context, &before, &images)?;
        Lock::new(images).write(&path)?;
        Ok(0)
    }
}

/// Says what each image is, and what it was.
fn show(context: &Context, before: &BTreeMap<String, Digest>, now: &BTreeMap<String, Digest>) -> Result<(), Error> {
    let mut out = context.ui.out();
    for (full, digest) in now {
        let (name, digest, old) = (Reference::parse(full)?.familiar(), digest.short(), before.get(full));
        match old.map(Digest::short) {
            Some(old) if old != digest => writeln!(out, "{name} {old} → {digest}")?,
            Some(_) => writeln!(out, "{name} {digest}")?,
            None => writeln!(out, "{name} {digest} (new)")?,
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        writeln!(out, "{name} (gone)")?;
    }
    Ok(())
}
