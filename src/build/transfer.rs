//! COPY, ADD and WORKDIR: what they write and the keys of their results.

use std::os::fd::{AsFd, BorrowedFd};

use super::archive;
use super::builder::Builder;
use super::cache::Key;
use super::chmod::Chmod;
use super::error::{Error, Problem};
use super::ignore::{Ignore, clean};
use super::instruction::Copy;
use super::place::Placer;
use super::scope;
use super::source::Origin;
use super::state::State;
use super::tree::{self, Node, Selected, Tree};
use super::users;
use crate::images::Digest;

/// A COPY or ADD with its variables expanded.
#[derive(Debug)]
pub(crate) struct Transfer {
    add: bool,
    sources: Vec<String>,
    /// Name and content of files that the Dockerfile holds itself.
    documents: Vec<(String, String)>,
    /// Absolute; ends in `/` if it must be a folder.
    target: String,
    chown: Option<String>,
    chmod: Option<String>,
    parents: bool,
    exclude: Vec<String>,
    unpack: Option<bool>,
}

/// A source with everything in it.
struct Found {
    source: String,
    selected: Selected,
    nodes: Vec<Node>,
}

impl Transfer {
    pub(crate) fn new(copy: &Copy, state: &State, escape: char) -> Result<Self, Error> {
        let mut expander = scope::expander(escape, &state.config.config.env, &state.args);
        let mut word = |text: &String| scope::word(&mut expander, text);
        let sources = copy.sources.iter().map(&mut word).collect::<Result<Vec<_>, _>>()?;
        let target = word(&copy.target)?;
        let chown = copy.chown.as_ref().map(&mut word).transpose()?;
        let chmod = copy.chmod.as_ref().map(&mut word).transpose()?;
        let exclude = copy.exclude.iter().map(&mut word).collect::<Result<_, _>>()?;
        let documents = copy.documents.iter().map(|doc| {
            let content = doc.chomped();
            if !doc.expand {
                return Ok((doc.name.clone(), content));
            }
            let mut expander = scope::expander(escape, &state.config.config.env, &state.args);
            expander.ignore_quotes = true;
            scope::word(&mut expander, &content).map(|content| (doc.name.clone(), content))
        });
        let documents = documents.collect::<Result<_, _>>()?;
        if let Some(remote) = sources.iter().find(|source| copy.add && is_remote(source)) {
            let hint = "fetch it in a RUN step, or before the build, and COPY it";
            return Err(Problem::new(format!("ADD can't fetch `{remote}` yet")).hint(hint).into());
        }
        if copy.checksum.is_some() {
            return Err(Problem::new("--checksum is for remote files, which ADD can't fetch yet").into());
        }
        let target = if target.is_empty() { ".".to_owned() } else { target };
        let target = state.absolute(&target);
        if sources.len() + copy.documents.len() > 1 && !target.ends_with('/') {
            let problem =
                Problem::new(format!("several sources need a folder as target, and `{target}` may be a file"));
            return Err(problem.hint(format!("write `{target}/`")).into());
        }
        Ok(Self {
            add: copy.add,
            sources,
            documents,
            target,
            chown,
            chmod,
            parents: copy.parents,
            exclude,
            unpack: copy.unpack,
        })
    }

    fn key(&self, kind: &str, state: &State) -> Key {
        let mut key = Key::new(kind);
        key.layers(&state.layers);
        key.number(u64::from(self.add) | u64::from(self.parents) << 1);
        key.number(self.unpack.map_or(2, u64::from));
        key.text(&self.target);
        key.list(&[self.chown.as_deref().unwrap_or_default(), self.chmod.as_deref().unwrap_or_default()]);
        key.list(&self.exclude);
        for (name, content) in &self.documents {
            key.list(&[name, content]);
        }
        key
    }

    fn content_key(&self, state: &State, tree: Option<&Tree>, found: &[Found]) -> Result<Digest, Error> {
        let mut key = self.key("copy", state);
        for found in found {
            key.text(if self.parents { &found.selected.path } else { found.selected.base() });
            if self.parents {
                key.text(&found.source);
            }
            if let Some(tree) = tree {
                key.add(tree::digest(tree, &found.selected, &found.nodes)?.as_bytes());
            }
        }
        Ok(key.finish())
    }

    fn find(&self, tree: &Tree) -> Result<Vec<Found>, Error> {
        let exclude = Ignore::patterns(&self.exclude)?;
        let mut found = Vec::new();
        for source in &self.sources {
            for selected in tree.select(source)? {
                let nodes = tree.list(&selected, &exclude)?;
                found.push(Found { source: source.clone(), selected, nodes });
            }
        }
        Ok(found)
    }

    fn place(&self, root: BorrowedFd<'_>, tree: Option<&Tree>, found: &[Found]) -> Result<(), Error> {
        let explicit = self.chown.as_deref().map(|text| users::owner(root, text)).transpose()?;
        let chmod = self.chmod.as_deref().map(Chmod::parse).transpose()?;
        // Files of a context belong to root, whoever owns them here.
        let owner = explicit.or_else(|| tree.filter(|tree| !tree.owned).map(|_| (0, 0)));
        let placer = Placer::new(root, owner, chmod.clone());
        // What comes out of an archive keeps the owners in it.
        let unpacker = Placer::new(root, explicit, chmod);
        let folder = self.target.ends_with('/') || placer.is_folder(&self.target);
        if found.len() + self.documents.len() > 1 && !folder && !self.parents {
            let problem = Problem::new(format!("the sources are several, and `{}` is not a folder", self.target));
            return Err(problem.hint(format!("write `{}/`", self.target)).into());
        }
        let within = |name: &str| {
            if folder { format!("{}/{name}", self.target.trim_end_matches('/')) } else { self.target.clone() }
        };
        for found in found {
            self.place_one((&placer, &unpacker), found, &within)?;
        }
        for (name, content) in &self.documents {
            placer.text(&within(name), content.as_bytes())?;
        }
        Ok(())
    }

    fn place_one(
        &self,
        (placer, unpacker): (&Placer<'_>, &Placer<'_>),
        found: &Found,
        within: &dyn Fn(&str) -> String,
    ) -> Result<(), Error> {
        let Found { source, selected, nodes } = found;
        if self.parents {
            let path = format!("{}/{}", self.target.trim_end_matches('/'), kept_parents(source, &selected.path));
            return match (selected.is_dir(), nodes.first()) {
                (true, _) => placer.content(selected, nodes, &path),
                (false, Some(node)) => placer.file(selected, node, &path),
                (false, None) => Ok(()),
            };
        }
        if selected.is_dir() {
            return placer.content(selected, nodes, &self.target);
        }
        let Some(node) = nodes.first() else { return Ok(()) };
        if self.add && self.unpack != Some(false) {
            let read = Error::io("read", &selected.path);
            let mut file = std::fs::File::from(selected.open(&node.path).map_err(Error::io("read", &selected.path))?);
            if let Some(packing) = archive::recognise(&mut file).map_err(read)? {
                return archive::unpack(unpacker, file, packing, &self.target);
            }
        }
        placer.file(selected, node, &within(selected.base()))
    }
}

/// The part of a source's path that --parents keeps: what follows `/./`, or all of it.
fn kept_parents(source: &str, path: &str) -> String {
    let Some((dropped, _)) = source.split_once("/./") else { return path.to_owned() };
    let count = clean(dropped).split('/').filter(|name| !name.is_empty() && *name != ".").count();
    path.split('/').skip(count).collect::<Vec<_>>().join("/")
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|prefix| source.starts_with(prefix))
}

impl Builder<'_> {
    /// Runs COPY or ADD; true if an earlier result was taken.
    pub(crate) fn transfer(
        &self,
        state: &mut State,
        transfer: &Transfer,
        from: Origin,
        text: &str,
    ) -> Result<bool, Error> {
        let quick = from.layers().map(|layers| {
            let mut key = transfer.key("copy from image", state);
            key.layers(layers);
            key.list(&transfer.sources);
            key.finish()
        });
        if let Some(record) = quick.as_ref().and_then(|key| self.earlier(key)) {
            state.commit(text, Some(record.created), record.layer());
            return Ok(true);
        }
        let tree = if transfer.sources.is_empty() { None } else { Some(self.tree(&from)?) };
        let found = tree.as_ref().map(|tree| transfer.find(tree)).transpose()?.unwrap_or_default();
        let key = transfer.content_key(state, tree.as_ref(), &found)?;
        let mut keys = vec![key];
        keys.extend(quick);
        self.change(state, &keys, text, |root| transfer.place(root, tree.as_ref(), &found))
    }

    /// Runs WORKDIR, which makes the folder; true if an earlier result was taken.
    pub(crate) fn workdir(&self, state: &mut State, path: &str, text: &str) -> Result<bool, Error> {
        let path = state.absolute(path).trim_end_matches('/').to_owned();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        state.config.config.working_dir.clone_from(&path);
        if path == "/" {
            state.commit(text, None, None);
            return Ok(true);
        }
        let user = state.config.config.user.clone();
        let mut key = Key::new("workdir");
        key.layers(&state.layers);
        key.list(&[&path, &user]);
        self.change(state, &[key.finish()], text, |root| {
            let probe = Placer::new(root.as_fd(), None, None);
            if probe.is_folder(&path) {
                return Ok(());
            }
            let owner = users::owner(root.as_fd(), &user)?;
            Placer::new(root.as_fd(), Some(owner), None).folder(&path).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_kept_from_the_pivot_on() {
        assert_eq!(kept_parents("a/b/c", "a/b/c"), "a/b/c");
        assert_eq!(kept_parents("./a/./b/c", "a/b/c"), "b/c");
        assert_eq!(kept_parents("a/*/./c", "a/x/c"), "c");
        assert_eq!(kept_parents("/a/./b", "a/b"), "b");
    }
}
