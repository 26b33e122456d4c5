//! Short forms made long: what is particular to single attributes.

use super::canonical::Canon;
use super::diagnostic::Kind;
use super::node::{Entry, Map, Node, Trail, Value};
use super::ports::{self, PortError};
use super::schema::{self, Missing, Object, Shape};
use super::session::Budget;
use super::words;

impl Canon<'_, '_> {
    /// A command line as text or list.
    pub(crate) fn command(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Some(text) = node.as_str() else { return self.list(node, &Shape::Str, trail) };
        match words::split(text) {
            Ok(words) => {
                let words = words.into_iter().map(|word| Node::str(word, node.span)).collect();
                Some(Node::new(Value::List(words), node.span))
            }
            Err(problem) => self.bad(node.span, trail, problem),
        }
    }

    pub(crate) fn health_test(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        if node.as_str().is_some() {
            return Some(Node::new(Value::List(vec![Node::str("CMD-SHELL", span), node]), span));
        }
        let node = self.list(node, &Shape::Str, trail)?;
        let first = node.as_list().and_then(<[Node]>::first).and_then(Node::as_str);
        match first {
            Some("CMD" | "CMD-SHELL" | "NONE") | None => Some(node),
            Some(other) => {
                let message = format!("{trail} must begin with CMD, CMD-SHELL or NONE, not `{other}`");
                let hint = format!("write [CMD, {other}, …], or the command as one string");
                self.session.error_hint(Kind::Value, span, message, hint);
                None
            }
        }
    }

    /// A mapping, or a list of `key=value`.
    pub(crate) fn mapping(
        &mut self,
        node: Node,
        missing: Missing,
        item: &'static Shape,
        trail: &Trail<'_>,
    ) -> Option<Node> {
        let span = node.span;
        let listed = node.as_list().is_some();
        let entries: Vec<(String, Entry)> = match node.value {
            Value::Map(map) => map.into_iter().collect(),
            Value::List(list) => self.pairs(list, trail),
            _ => return self.mismatch(&node, trail, "a mapping or a list of `KEY=value`"),
        };
        let mut out = Map::with_capacity(entries.len());
        for (name, Entry { key, node }) in entries {
            if name.is_empty() && node.is_null() && missing != Missing::Refused {
                let warning = self.session.warning_at(Kind::Value, key, format!("{trail}: an empty entry is ignored"));
                self.session.report(warning);
                continue;
            }
            if name.is_empty() && !listed {
                self.session.error(Kind::Value, key, format!("{trail}: a name is empty"));
                continue;
            }
            if name.is_empty() {
                self.refuse(key, trail, "the name before `=` is missing");
            }
            if name.contains(['\0', '\n']) || name.ends_with(char::is_whitespace) {
                let message = format!("{trail}: the name `{name}` ends with a space or spans lines");
                self.session.error(Kind::Value, key, message);
                continue;
            }
            let blank = node.is_null() && !node.is_reset();
            let node = match missing {
                Missing::Refused if blank => {
                    self.session.error(Kind::Shape, key, format!("{trail}: `{name}` lacks a value"));
                    continue;
                }
                Missing::Empty if blank => Node::str("", node.span),
                _ => node,
            };
            if let Some(node) = self.walk(node, item, &Trail::Key(trail, &name)) {
                out.insert(name, Entry { key, node });
            }
        }
        Some(Node::new(Value::Map(out), span))
    }

    fn pairs(&mut self, list: Vec<Node>, trail: &Trail<'_>) -> Vec<(String, Entry)> {
        let mut pairs = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let span = node.span;
            let pair = node.as_map().and_then(|map| map.first());
            if let Some((name, value)) = pair.and_then(|(name, entry)| Some((name, entry.node.scalar_text()?))) {
                let message = format!("{} must be a string, not a mapping", Trail::Index(trail, index));
                let hint = format!("write `- {name}={value}`, or `{name}: {value}` without the dash");
                self.session.error_hint(Kind::Shape, span, message, hint);
                continue;
            }
            let Some(node) = self.string(node, &Trail::Index(trail, index)) else { continue };
            let text = node.as_str().unwrap_or_default();
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Value::Str(value.to_owned())),
                None => (text, Value::Null),
            };
            pairs.push((name.to_owned(), Entry { key: span, node: Node::new(value, span) }));
        }
        pairs
    }

    pub(crate) fn text_map(&mut self, node: Node, missing: Missing, trail: &Trail<'_>) -> Option<Node> {
        if node.as_map().is_none() {
            return self.mismatch(&node, trail, "a mapping");
        }
        self.mapping(node, missing, &Shape::NumberText, trail)
    }

    /// `dns`: addresses, empty ones left out.
    pub(crate) fn addresses(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let mut node = self.walk(node, &Shape::StrOrList(&Shape::Str), trail)?;
        if let Value::List(list) = &mut node.value {
            list.retain(|item| item.as_str() != Some(""));
        }
        Some(node)
    }

    /// `extra_hosts`: a list of `name=address`, sorted in the end.
    pub(crate) fn hosts(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        let mut hosts: Vec<(String, Node)> = Vec::new();
        match node.value {
            Value::Map(map) => {
                for (name, Entry { node, .. }) in map {
                    if node.is_null() && !node.is_reset() {
                        return self.mismatch(&node, &Trail::Key(trail, &name), "an address");
                    }
                    let node = self.walk(node, &Shape::StrOrList(&Shape::Str), &Trail::Key(trail, &name))?;
                    let Value::List(addresses) = node.value else { continue };
                    hosts.extend(addresses.into_iter().map(|address| (name.clone(), address)));
                }
            }
            Value::List(_) => {
                let Value::List(list) = self.list(node, &Shape::Str, trail)?.value else { return None };
                for node in list {
                    let text = node.as_str().unwrap_or_default();
                    let Some((name, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                        let message = format!("`{text}` lacks an address; the form is `name=address`");
                        return self.bad(node.span, trail, message);
                    };
                    let addresses =
                        addresses.split(',').map(|address| (name.to_owned(), Node::str(address, node.span)));
                    hosts.extend(addresses);
                }
            }
            _ => return self.mismatch(&node, trail, "a mapping or a list of `name=address`"),
        }
        let mut out = Vec::with_capacity(hosts.len());
        for (name, node) in hosts {
            if name.is_empty() || name.contains([':', '=']) || name.contains(char::is_whitespace) {
                return self.bad(node.span, trail, format!("`{name}` cannot be a host name"));
            }
            let address = node.as_str().unwrap_or_default();
            let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            out.push(Node::str(format!("{name}={address}"), node.span));
        }
        Some(Node::new(Value::List(out), span))
    }

    pub(crate) fn depends_on(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let listed = node.as_list().is_some();
        let mut node = self.names(node, trail);
        if let (true, Some(map)) = (listed, node.as_map_mut()) {
            for entry in map.values_mut() {
                let span = entry.key;
                let started = Node::str("service_started", span);
                entry.node = Node::map([("condition", started), ("required", Node::bool(true, span))], span);
            }
        }
        self.map_of(node, &schema::DEPENDENCY_SHAPE, trail)
    }

    /// A top-level resource, `external: {name: x}` brought to its new form.
    pub(crate) fn resource(&mut self, node: Node, object: &'static Object, trail: &Trail<'_>) -> Option<Node> {
        let mut node = self.object(node, object, trail)?;
        let Some(map) = node.as_map_mut() else { return Some(node) };
        if let Some(Entry { node: external, key }) = map.get("external").cloned()
            && !external.is_reset()
        {
            let trail = Trail::Key(trail, "external");
            let external = match &external.value {
                Value::Map(inner) => {
                    let strict = object.fields.iter().all(|field| field.name != "file");
                    if let Some(unknown) =
                        inner.iter().filter(|_| strict).find(|(name, _)| *name != "name" && !name.starts_with("x-"))
                    {
                        let message = format!("unknown attribute `{}` in {trail}", unknown.0);
                        self.session.error_hint(Kind::UnknownKey, unknown.1.key, message, "known here: name");
                        return None;
                    }
                    if let Some(named) = inner.get("name") {
                        let named_node = self.string(named.node.clone(), &Trail::Key(&trail, "name"))?;
                        if map.get("name").is_some_and(|own| own.node.as_str() != named_node.as_str()) {
                            return self.bad(named.key, &trail, "the name differs from `name`; keep only `name`");
                        }
                        map.insert("name".into(), Entry { key: named.key, node: named_node });
                    }
                    Node { value: Value::Bool(true), ..external }
                }
                _ => self.walk(external, &Shape::Bool, &trail)?,
            };
            map.insert("external".into(), Entry { key, node: external });
        }
        if let Some(Entry { key, node: file }) = map.get_mut("file").filter(|file| file.node.as_str() == Some("")) {
            self.refuse(*key, trail, "`file` is blank");
            *file = self.path(Node::str(".", file.span));
        }
        let bind =
            |key: &str, value: &str| map.get("driver_opts").and_then(|opts| opts.node.get_str(key)) == Some(value);
        let local = map.get("driver").is_some_and(|driver| driver.node.as_str() == Some("local"));
        if local
            && bind("o", "bind")
            && let Some(options) = map.get_mut("driver_opts").and_then(|options| options.node.as_map_mut())
            && let Some(device) = options.get_mut("device")
        {
            let node = std::mem::take(&mut device.node);
            let empty = node.as_str() == Some("");
            device.node = self.path(if empty { Node::str(".", node.span) } else { node });
        }
        Some(node)
    }

    pub(crate) fn ports(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Value::List(list) = node.value else { return self.mismatch(&node, trail, "a list") };
        let mut out = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let trail = &Trail::Index(trail, index);
            match &node.value {
                _ if self.is_template(&node) => out.push(node),
                Value::Map(_) => {
                    let port = self.object(node, &schema::PORT, trail);
                    out.extend(port.and_then(|port| self.long_port(port, trail)));
                }
                Value::Int(..) | Value::Str(_) => {
                    let text = node.scalar_text().unwrap_or_default();
                    match ports::parse(&text) {
                        Ok(ports) if !self.session.spend(Budget::Nodes, ports.len() * 5, node.span) => {}
                        Ok(ports) => out.extend(ports.into_iter().map(|port| {
                            let text = |text: String| Node::str(text, node.span);
                            let mut entries = vec![("mode", text("ingress".into()))];
                            entries.extend(port.host_ip.map(|ip| ("host_ip", text(ip))));
                            entries.push(("target", Node::int(port.target.into(), node.span)));
                            entries.extend(port.published.map(|published| ("published", text(published))));
                            entries.push(("protocol", text(port.protocol)));
                            Node::map(entries, node.span)
                        })),
                        Err(error) => self.port_error(&node, error, trail),
                    }
                }
                _ => {
                    self.mismatch::<Node>(&node, trail, "a port such as `\"8080:80\"` or a mapping");
                }
            }
        }
        Some(Node { value: Value::List(out), ..node })
    }

    fn port_error(&mut self, node: &Node, error: PortError, trail: &Trail<'_>) {
        self.bad::<Node>(node.span, trail, error);
    }

    fn long_port(&mut self, mut port: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = port.span;
        for key in ["mode", "protocol"] {
            let default = if key == "mode" { "ingress" } else { "tcp" };
            port.set_default(key, Node::str(default, span));
        }
        if let Some(published) = port.get("published").filter(|node| !self.is_template(node)).cloned()
            && let Some(text) = published.as_str().filter(|text| !text.is_empty())
            && let Err(error) = ports::published(text)
        {
            self.refuse(published.span, trail, error);
        }
        if let Some(ip) = port.get("host_ip").filter(|node| !self.is_template(node)).cloned()
            && let Some(text) = ip.as_str()
            && text.parse::<std::net::IpAddr>().is_err()
        {
            return self.bad(ip.span, trail, PortError::Address(text.into()));
        }
        let protocol = port.get("protocol").cloned().unwrap_or_default();
        if let Some(Err(error)) = protocol.as_str().filter(|_| !self.is_template(&protocol)).map(ports::protocol) {
            self.refuse(protocol.span, trail, error);
        }
        if let Some(target) = port.get("target").filter(|target| matches!(target.value, Value::Int(0, _))).cloned() {
            self.refuse(target.span, trail, PortError::Zero);
        }
        Some(port)
    }

    pub(crate) fn file_mounts(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        self.list(node, &schema::FILE_MOUNT_SHAPE, trail)
    }

    pub(crate) fn env_files(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        let node = if node.as_list().is_some() { node } else { Node::new(Value::List(vec![node]), span) };
        self.list(node, &schema::ENV_FILE_SHAPE, trail)
    }

    pub(crate) fn gpus(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        match node.as_str() {
            Some("all") => {
                let all = Node::map([("count", Node::int(-1, span))], span);
                Some(Node::new(Value::List(vec![all]), span))
            }
            Some(other) => self.bad(span, trail, format!("`{other}` is not possible; write `all` or a list")),
            None => self.list(node, &schema::GPU_SHAPE, trail),
        }
    }

    pub(crate) fn count(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        match node.as_str() {
            Some("all") => Some(Node::int(-1, node.span)),
            _ => self.integer(node, -1, i64::MAX, trail),
        }
    }

    /// `build.ssh`: a list of `default` and `id=path`.
    pub(crate) fn ssh(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        let listed = node.as_list().is_some();
        if let Some(blank) = node.as_list().into_iter().flatten().find(|item| item.as_str() == Some("")) {
            return self.bad(blank.span, trail, "an ssh key is empty; write `default` or `id=path`");
        }
        let node = self.mapping(node, Missing::Outside, &Shape::Text, trail)?;
        let Value::Map(map) = node.value else { return None };
        let mut out = Vec::with_capacity(map.len());
        for (id, Entry { node, .. }) in map {
            let path = node.as_str().filter(|path| !path.is_empty()).map(|path| Node::str(path, node.span));
            if path.is_none() && listed && id != "default" {
                return self.bad(node.span, trail, format!("ssh key `{id}` needs a path; the form is `id=path`"));
            }
            let path = path.map(|path| self.path(path));
            let path = path.as_ref().and_then(Node::as_str);
            out.push(Node::str(path.map_or_else(|| id.clone(), |path| format!("{id}={path}")), span));
        }
        Some(Node::new(Value::List(out), span))
    }

    pub(crate) fn ulimits(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Value::Map(map) = node.value else { return self.mismatch(&node, trail, "a mapping") };
        let mut out = Map::with_capacity(map.len());
        for (name, Entry { key, node }) in map {
            let trail = &Trail::Key(trail, &name);
            let limit = match node.value {
                Value::Map(_) => self.object(node, &schema::ULIMIT, trail),
                _ if node.is_reset() || node.is_null() => Some(node),
                Value::Float(..) => self.mismatch(&node, trail, "a whole number"),
                _ => self.integer(node, i64::MIN, i64::MAX, trail),
            };
            if let Some(Node { value: Value::Int(limit @ ..-1, _), span, .. }) = &limit {
                self.refuse(*span, trail, format!("{limit} is below -1"));
            }
            if let Some(node) = limit {
                out.insert(name, Entry { key, node });
            }
        }
        Some(Node { value: Value::Map(out), ..node })
    }

    /// `provider.options`: a mapping to strings and lists of strings; the last look makes lists of all.
    pub(crate) fn provider_options(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Value::Map(map) = node.value else { return self.mismatch(&node, trail, "a mapping") };
        let mut out = Map::with_capacity(map.len());
        for (name, Entry { key, node }) in map {
            if node.is_null() && !node.is_reset() {
                self.mismatch::<Node>(&node, &Trail::Key(trail, &name), "a string or a list of strings");
                continue;
            }
            let shape = if node.as_list().is_some() { &Shape::List(&Shape::Text) } else { &Shape::Text };
            if let Some(node) = self.walk(node, shape, &Trail::Key(trail, &name)) {
                out.insert(name, Entry { key, node });
            }
        }
        Some(Node { value: Value::Map(out), ..node })
    }
}
