//! Dev mode in the foreground: which files changed, and who changed them.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::Duration;

use super::error::Error;
use super::project::Context;
use super::session::{open, reply};
use super::watch_work::{Doer, explained};
use crate::engine::client::Client;
use crate::engine::control::{Reply, Request};
use crate::engine::watch::{Authors, Changes, Rule, Tree, may_write};
use crate::spec::Loaded;

/// How long the kernel may take between telling one queue of a write and telling another.
const BOTH: Duration = Duration::from_millis(1);

/// Dev mode of a loaded project.
pub(crate) struct Watching<'a> {
    context: &'a Context,
    loaded: &'a Loaded,
    rules: Vec<Rule>,
    tree: Tree,
    /// Knows what containers write themselves, where they may and that must not count.
    witness: Option<Witness>,
    how: How,
}

/// How dev mode is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Remove images that a rebuild leaves without a name.
    pub(crate) prune: bool,
    /// Don't show what builds print.
    pub(crate) quiet: bool,
    /// The logs of the services are on the same screen.
    pub(crate) logs: bool,
}

/// Who knows what containers write.
struct Witness {
    authors: Authors,
    services: BTreeSet<String>,
    /// As long as it is open, the supervisor marks what is mounted in containers.
    client: Client,
}

impl<'a> Watching<'a> {
    /// Begins to watch what the rules of `services` (all if empty) are about.
    pub(crate) async fn new(
        context: &'a Context,
        loaded: &'a Loaded,
        services: &[String],
        how: How,
    ) -> Result<Self, Error> {
        let (mut rules, mut writing) = (Vec::new(), BTreeSet::new());
        for (name, service) in &loaded.project.services {
            if !services.is_empty() && !services.contains(name) {
                continue;
            }
            let (found, warnings) = Rule::of(name, service, &loaded.source.files)?;
            rules.extend(found);
            warnings.iter().try_for_each(|warning| context.ui.warn(warning))?;
            if may_write(service) {
                writing.insert(name.clone());
            }
        }
        if rules.is_empty() {
            return Err(Error::new("none of the services has anything to watch").hint(
                "say what to do when files change under `develop.watch` of a service, or restart it whenever its mounted \
                 source changes: `x-stack: { watch: auto }`",
            ));
        }
        let tree = Tree::new(&rules).map_err(explained)?;
        let witness = if writing.is_empty() { None } else { Some(Witness::new(context, loaded, writing).await?) };
        Ok(Self { context, loaded, rules, tree, witness, how })
    }

    /// Acts on changes for ever, from when the stack is up. What fails is shown, and watching goes on.
    pub(crate) async fn run(&mut self) -> Result<(), Error> {
        let Self { context, loaded, rules, tree, witness, how } = self;
        let doer = Doer { context, loaded, rules, how: *how };
        let services: BTreeSet<&str> = rules.iter().map(|rule| rule.service.as_str()).collect();
        for service in &services {
            doer.begin(service).await?;
        }
        let names: Vec<&str> = services.into_iter().collect();
        doer.say(&format!("Watch enabled for {} ({} folders)", names.join(", "), tree.folders()))?;
        let mut changes = Changes::default();
        loop {
            if changes.is_empty() {
                changes = next(tree, witness, rules, &doer).await?;
            }
            let batch = std::mem::take(&mut changes);
            let acting = doer.act(&batch);
            tokio::pin!(acting);
            loop {
                tokio::select! {
                    done = &mut acting => break done?,
                    more = next(tree, witness, rules, &doer) => changes.merge(more?),
                }
            }
        }
    }
}

/// The next changes, with their authors.
async fn next(
    tree: &mut Tree,
    witness: &mut Option<Witness>,
    rules: &[Rule],
    doer: &Doer<'_>,
) -> Result<Changes, Error> {
    loop {
        let mut changes = tokio::select! {
            changes = tree.next() => changes.map_err(explained)?,
            lost = lost(witness.as_ref()) => {
                if let (Some(witness), true) = (witness.as_mut(), lost) {
                    witness.client = witness.authors_known(doer).await?;
                }
                continue;
            }
        };
        if let Some(lack) = tree.lack() {
            let hint = lack.hint().unwrap_or_default();
            doer.context.ui.warn(format!("{lack}; every write on the disk wakes dev mode from now on: {hint}"))?;
        }
        if let Some(witness) = witness {
            witness.authors.listen()?;
            // Whatever containers wrote until then is among the changes once the kernel has told both queues. This is
            // not awaited: the changes would be lost where the future is dropped.
            std::thread::sleep(BOTH);
            changes.merge(tree.more().map_err(explained)?);
            witness.authors.attribute(rules, &mut changes);
        }
        return Ok(changes);
    }
}

/// Returns when the supervisor that marks mounts is gone.
async fn lost(witness: Option<&Witness>) -> bool {
    match witness {
        Some(witness) => {
            while reply(&witness.client).await.is_ok() {}
            true
        }
        None => std::future::pending().await,
    }
}

impl Witness {
    async fn new(context: &Context, loaded: &Loaded, services: BTreeSet<String>) -> Result<Self, Error> {
        let authors = Authors::new()?;
        let client = ask(context, loaded, &services, &authors).await?;
        Ok(Self { authors, services, client })
    }

    /// Asks the next supervisor.
    async fn authors_known(&self, doer: &Doer<'_>) -> Result<Client, Error> {
        ask(doer.context, doer.loaded, &self.services, &self.authors).await
    }
}

async fn ask(
    context: &Context,
    loaded: &Loaded,
    services: &BTreeSet<String>,
    authors: &Authors,
) -> Result<Client, Error> {
    let request = Request::Witness { services: services.clone() };
    let client = open(context, &loaded.project.name, &request, &[authors.as_fd()]).await?;
    match reply(&client).await?.0 {
        Reply::Failed(failure) => Err(failure.into()),
        _ => Ok(client),
    }
}
