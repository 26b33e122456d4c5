//! `volumes` and `devices` of a service, short forms made long.

use super::canonical::Canon;
use super::diagnostic::Kind;
use super::node::{Node, Trail, Value};
use super::schema;
use super::source::Span;
use super::volumes::{self, ShortVolume};

impl Canon<'_, '_> {
    pub(crate) fn volumes(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Value::List(list) = node.value else { return self.mismatch(&node, trail, "a list") };
        let mut out = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let trail = &Trail::Index(trail, index);
            match &node.value {
                Value::Str(text) => match volumes::parse(text) {
                    Ok(volume) => out.push(self.short_volume(volume, &node)),
                    Err(_) if self.is_template(&node) => out.push(node),
                    Err(error) => {
                        self.bad::<Node>(node.span, trail, error);
                    }
                },
                Value::Map(_) => {
                    let mount = self.object(node, &schema::MOUNT, trail);
                    out.extend(mount.and_then(|mount| self.long_volume(mount, trail)));
                }
                _ => {
                    self.mismatch::<Node>(&node, trail, "a mount such as `./data:/data` or a mapping");
                }
            }
        }
        Some(Node { value: Value::List(out), ..node })
    }

    fn short_volume(&mut self, volume: ShortVolume, node: &Node) -> Node {
        let span = node.span;
        let text = |text: &str| Node::str(text, span);
        if !volume.unknown.is_empty() {
            let message = format!("unknown mount option `{}` is ignored", volume.unknown.join(","));
            let diagnostic = self.session.warning_at(Kind::Value, span, message);
            let hint = "known: ro, rw, nocopy, z, Z, [r]private, [r]shared, [r]slave";
            self.session.report(diagnostic.hint(hint));
        }
        self.mount_target(&volume.target, span);
        let bind = volume.is_bind();
        let mut entries = vec![("type", text(if bind { "bind" } else { "volume" }))];
        if let Some(source) = &volume.source {
            let source = text(source);
            entries.push(("source", if bind { self.bind_source(source) } else { source }));
        }
        entries.push(("target", text(&volume.target)));
        if volume.read_only {
            entries.push(("read_only", Node::bool(true, span)));
        }
        let mut bind_options: Vec<(&'static str, Node)> = Vec::new();
        bind_options.extend(volume.propagation.as_deref().map(|propagation| ("propagation", text(propagation))));
        bind_options.extend(volume.selinux.as_deref().map(|selinux| ("selinux", text(selinux))));
        if bind || !bind_options.is_empty() {
            entries.push(("bind", Node::map(bind_options, span)));
        }
        let short = node.as_str().is_some_and(|text| text.len() <= 2);
        if !bind && !short || volume.nocopy {
            let nocopy = volume.nocopy.then(|| ("nocopy", Node::bool(true, span)));
            entries.push(("volume", Node::map(nocopy, span)));
        }
        Node::map(entries, span)
    }

    /// A mount needs an absolute place in the container.
    fn mount_target(&mut self, target: &str, span: Span) {
        let template = self.session.options.no_interpolate && target.contains('$');
        if !target.starts_with('/') && !template {
            let message = format!("`{target}` is no absolute path of a container");
            let hint = "a volume's name has at least two letters; a path in the container begins with `/`";
            self.session.refuse(Kind::Value, span, &message, hint);
        }
    }

    /// The host path of a bind mount: absolute, a path of Windows left alone.
    fn bind_source(&mut self, source: Node) -> Node {
        match source.as_str() {
            Some(path) if volumes::is_windows_absolute(path) => {
                let message = format!("`{path}` is a path of Windows; this host has no drives");
                self.session.refuse(Kind::Value, source.span, &message, "use a path such as `./data`");
                source
            }
            Some(path) if path.starts_with('/') => source,
            _ => self.path(source),
        }
    }

    fn long_volume(&mut self, mut mount: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = mount.span;
        let kind = mount.get_str("type").unwrap_or_default().to_owned();
        let map = mount.as_map_mut()?;
        if kind == "bind" {
            let Some(source) = map.get_mut("source").filter(|source| source.node.as_str().is_some()) else {
                return self.bad(span, trail, "a bind mount needs a `source`");
            };
            let node = std::mem::take(&mut source.node);
            let blank = node.as_str() == Some("");
            source.node = self.bind_source(if blank { Node::str(".", node.span) } else { node });
            if blank {
                self.refuse(span, trail, "the `source` is empty; the project directory is written `.`");
            }
        }
        if let Some(target) = map.get_mut("target")
            && let Some(text) = target.node.as_str()
        {
            target.node = Node::str(volumes::clean(text), target.node.span);
        }
        if let (Some(target), false) = (mount.get("target").cloned(), kind == "npipe") {
            self.mount_target(target.as_str().unwrap_or_default(), target.span);
        }
        Some(mount)
    }

    pub(crate) fn devices(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Value::List(list) = node.value else { return self.mismatch(&node, trail, "a list") };
        let mut out = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let trail = &Trail::Index(trail, index);
            let span = node.span;
            let Some(text) = node.as_str().map(str::to_owned) else {
                out.extend(self.object(node, &schema::DEVICE, trail));
                continue;
            };
            let parts: Vec<&str> = text.split(':').collect();
            let (source, target, permissions) = match parts.as_slice() {
                [source] => (*source, *source, "rwm"),
                [source, target] => (*source, *target, "rwm"),
                [source, "", permissions] => (*source, *source, *permissions),
                [source, target, permissions] => (*source, *target, *permissions),
                _ => {
                    self.bad::<Node>(span, trail, "the form of a device is source[:target[:permissions]]");
                    continue;
                }
            };
            let text = |text: &str| Node::str(text, span);
            let entries = [("source", text(source)), ("target", text(target)), ("permissions", text(permissions))];
            out.push(Node::map(entries, span));
        }
        Some(Node { value: Value::List(out), ..node })
    }
}
