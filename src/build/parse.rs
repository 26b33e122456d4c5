//! Statements to instructions.

use super::error::{Place, Problem};
use super::flags::Flags;
use super::instruction::{Command, Copy, From, Healthcheck, Instruction, Kind, Run};
use super::lines::{self, Heredoc, Line, Source, heredoc_word};
use super::mount;
use super::statement::{self, Args, Statement};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A Dockerfile that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: `\` or a backquote.
    pub escape: char,
    /// Its instructions in order.
    pub instructions: Vec<Instruction>,
    /// What works but should be changed.
    pub warnings: Vec<Problem>,
}

impl Dockerfile {
    /// Reads a Dockerfile; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let source = Source::new(name, text);
        let lines = lines::split(&source)?;
        let mut warnings = Vec::new();
        for line in &lines.empty_continuations {
            let problem = Problem::new("an instruction goes on after an empty line").hint("remove the empty line");
            warnings.push(problem.at(source.place(*line)));
        }
        let mut instructions = Vec::with_capacity(lines.all.len());
        for line in &lines.all {
            let place = || source.place(line.start);
            let instruction = instruction(line, lines.escape).map_err(|problem| problem.at(place()))?;
            warnings.extend(warning(&instruction).map(|problem| problem.at(place())));
            instructions.push(instruction);
        }
        starts_with_from(&instructions, |line| source.place(line))?;
        Ok(Self { escape: lines.escape, instructions, warnings })
    }
}

/// Reads one instruction that a base image kept for later by ONBUILD.
pub(crate) fn trigger(text: &str, line: usize) -> Result<Instruction, Problem> {
    let source = Source::new("ONBUILD of the base image", text);
    let mut lines = lines::split(&source)?.all;
    match (lines.pop(), lines.is_empty()) {
        (Some(found), true) => Ok(Instruction { line, ..instruction(&found, '\\')? }),
        _ => Err(Problem::new(format!("the base image's ONBUILD trigger is not one instruction: {text}"))),
    }
}

fn starts_with_from(instructions: &[Instruction], place: impl Fn(usize) -> Place) -> Result<(), Problem> {
    let first = instructions.iter().find(|instruction| !matches!(instruction.kind, Kind::Arg(_)));
    match first.map(|instruction| (&instruction.kind, instruction.line)) {
        Some((Kind::From(_), _)) => Ok(()),
        Some((_, line)) => {
            let problem = Problem::new("only ARG may come before the first FROM");
            Err(problem.hint("start with `FROM image`").at(place(line)))
        }
        None => Err(Problem::new("there is no FROM").hint("start with `FROM image`, or `FROM scratch`")),
    }
}

fn warning(instruction: &Instruction) -> Option<Problem> {
    match &instruction.kind {
        Kind::Maintainer(name) => Some(
            Problem::new("MAINTAINER is deprecated")
                .hint(format!("write LABEL org.opencontainers.image.authors=\"{name}\"")),
        ),
        _ => None,
    }
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, Problem> {
    let statement = statement::parse(&line.text, escape)?;
    let kind = kind(&statement, &line.text, &line.heredocs, false)?;
    Ok(Instruction { line: line.start, text: line.text.trim().to_owned(), kind })
}

fn kind(statement: &Statement, text: &str, heredocs: &[Heredoc], onbuild: bool) -> Result<Kind, Problem> {
    let keyword = statement.keyword.to_ascii_uppercase();
    let mut flags = Flags::new(&keyword, &statement.flags);
    let args = Words { keyword: &keyword, args: &statement.args };
    let kind = match keyword.as_str() {
        "FROM" => Kind::From(from(&args, &mut flags)?),
        "RUN" => Kind::Run(run(&args, &mut flags, heredocs)?),
        "COPY" | "ADD" => Kind::Copy(copy(&keyword, &args, &mut flags, heredocs)?),
        "ENV" => Kind::Env(args.pairs()?),
        "LABEL" => Kind::Label(args.pairs()?),
        "ARG" => Kind::Arg(arguments(&args)?),
        "EXPOSE" => Kind::Expose(args.some()?.to_vec()),
        "VOLUME" => Kind::Volume(args.some()?.to_vec()),
        "USER" => Kind::User(args.one()?),
        "WORKDIR" => Kind::Workdir(args.one()?),
        "STOPSIGNAL" => Kind::StopSignal(args.one()?),
        "MAINTAINER" => Kind::Maintainer(args.one()?),
        "SHELL" => match args.args {
            Args::Json(list) if !list.is_empty() => Kind::Shell(list.clone()),
            _ => return Err(Problem::new("SHELL needs the JSON form").hint(r#"write SHELL ["/bin/sh", "-c"]"#)),
        },
        "CMD" => Kind::Cmd(args.command()),
        "ENTRYPOINT" => Kind::Entrypoint(args.command()),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(&args, &mut flags)?),
        "ONBUILD" => {
            let Args::Nested(inner) = &statement.args else {
                return Err(Problem::new("ONBUILD needs an instruction").hint("write for example ONBUILD COPY . /app"));
            };
            let name = inner.keyword.to_ascii_uppercase();
            if onbuild || matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(Problem::new(format!("ONBUILD {name} is not allowed")));
            }
            let rest = text.trim()[statement.keyword.len()..].trim();
            self::kind(inner, rest, heredocs, true)?;
            let mut whole = rest.to_owned();
            for doc in heredocs {
                let before = if whole.ends_with('\n') { "" } else { "\n" };
                whole.extend([before, &doc.content, &doc.name, "\n"]);
            }
            Kind::Onbuild(whole)
        }
        _ => return Err(unknown(&statement.keyword)),
    };
    flags.finish()?;
    Ok(kind)
}

fn unknown(keyword: &str) -> Problem {
    let upper = keyword.to_ascii_uppercase();
    let problem = Problem::new(format!("there is no instruction `{}`", keyword.chars().take(40).collect::<String>()));
    match KEYWORDS.iter().map(|known| (distance(&upper, known), known)).min() {
        Some((near, known)) if near <= 2 => problem.hint(format!("did you mean {known}?")),
        _ => problem.hint("a line that belongs to the one before needs a \\ at the end of that one"),
    }
}

/// Edit distance, for suggestions.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 20 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let next = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row.pop().unwrap_or(0)
}

struct Words<'a> {
    keyword: &'a str,
    args: &'a Args,
}

impl Words<'_> {
    fn list(&self) -> &[String] {
        match self.args {
            Args::Json(list) | Args::Words(list) => list,
            Args::Pairs(_) | Args::Nested(_) => &[],
        }
    }

    fn is_json(&self) -> bool {
        matches!(self.args, Args::Json(_))
    }

    fn some(&self) -> Result<&[String], Problem> {
        match self.list() {
            [] => Err(Problem::new(format!("{} needs an argument", self.keyword))),
            list => Ok(list),
        }
    }

    fn one(&self) -> Result<String, Problem> {
        match self.some()? {
            [one] => Ok(one.clone()),
            _ => Err(Problem::new(format!("{} takes one argument", self.keyword))),
        }
    }

    fn pairs(&self) -> Result<Vec<(String, String)>, Problem> {
        let Args::Pairs(pairs) = self.args else { return Ok(Vec::new()) };
        if pairs.is_empty() {
            return Err(Problem::new(format!("{} needs an argument", self.keyword)).hint("write name=value"));
        }
        if pairs.iter().any(|(name, _, _)| name.is_empty()) {
            return Err(Problem::new(format!("a name of {} is empty", self.keyword)).hint("write name=value"));
        }
        Ok(pairs.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect())
    }

    fn command(&self) -> Command {
        if self.is_json() {
            return Command::Exec(self.list().to_vec());
        }
        Command::Shell(self.list().join(" "))
    }
}

fn from(args: &Words<'_>, flags: &mut Flags<'_>) -> Result<From, Problem> {
    let platform = flags.one("platform")?;
    let (image, name) = match args.list() {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        _ => return Err(Problem::new("FROM takes an image and perhaps a name").hint("write FROM image [AS name]")),
    };
    Ok(From { platform, image: image.clone(), name })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_lowercase();
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if valid {
        return Ok(lower);
    }
    let hint = "a name starts with a letter and has letters, digits, `-`, `_` and `.`";
    Err(Problem::new(format!("`{name}` can't be the name of a stage")).hint(hint))
}

fn run(args: &Words<'_>, flags: &mut Flags<'_>, heredocs: &[Heredoc]) -> Result<Run, Problem> {
    let mounts = flags.all("mount")?.iter().map(|text| mount::parse(text)).collect::<Result<_, _>>()?;
    let network = flags.one("network")?;
    match flags.one("security")?.as_deref() {
        None | Some("sandbox") => {}
        Some("insecure") => {
            let hint = "remove it; a build step never gets more rights than a container";
            return Err(Problem::new("RUN --security=insecure is not allowed").hint(hint));
        }
        Some(other) => return Err(Problem::new(format!("--security={other} is neither sandbox nor insecure"))),
    }
    args.some()?;
    Ok(Run { command: args.command(), heredocs: heredocs.to_vec(), mounts, network })
}

fn copy(keyword: &str, args: &Words<'_>, flags: &mut Flags<'_>, heredocs: &[Heredoc]) -> Result<Copy, Problem> {
    let add = keyword == "ADD";
    let chown = flags.one("chown")?;
    let chmod = flags.one("chmod")?;
    let link = flags.boolean("link")?.unwrap_or(false);
    let exclude = flags.all("exclude")?;
    let from = if add { None } else { flags.one("from")? };
    let parents = !add && flags.boolean("parents")?.unwrap_or(false);
    let unpack = if add { flags.boolean("unpack")? } else { None };
    let checksum = if add { flags.one("checksum")? } else { None };
    if add {
        flags.boolean("keep-git-dir")?;
    }
    let words = args.list();
    let Some((target, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        let hint = format!("write {keyword} source… target");
        return Err(Problem::new(format!("{keyword} needs at least one source and a target")).hint(hint));
    };
    let mut plain = Vec::new();
    let mut documents = Vec::new();
    let mut left = heredocs.iter();
    for source in sources {
        let announced = if args.is_json() { None } else { heredoc_word(source)? };
        match announced.and_then(|_| left.next()) {
            Some(doc) => documents.push(doc.clone()),
            None => plain.push(source.clone()),
        }
    }
    if from.is_some() && !documents.is_empty() {
        return Err(Problem::new("--from and heredocs don't go together"));
    }
    Ok(Copy {
        add,
        sources: plain,
        documents,
        target: target.clone(),
        from,
        chown,
        chmod,
        parents,
        link,
        exclude,
        unpack,
        checksum,
    })
}

fn arguments(args: &Words<'_>) -> Result<Vec<(String, Option<String>)>, Problem> {
    let argument = |word: &String| {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        if name.is_empty() {
            return Err(Problem::new(format!("`{word}` has no name")).hint("write ARG name=default"));
        }
        Ok((name.to_owned(), value.map(str::to_owned)))
    };
    args.some()?.iter().map(argument).collect()
}

fn healthcheck(args: &Words<'_>, flags: &mut Flags<'_>) -> Result<Healthcheck, Problem> {
    let hint = "write HEALTHCHECK CMD command, or HEALTHCHECK NONE";
    let Some((kind, rest)) = args.list().split_first() else {
        return Err(Problem::new("HEALTHCHECK needs an argument").hint(hint));
    };
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => Ok(Healthcheck::None),
        "NONE" => Err(Problem::new("HEALTHCHECK NONE takes no arguments")),
        "CMD" if rest.is_empty() => Err(Problem::new("HEALTHCHECK CMD needs a command").hint(hint)),
        "CMD" => {
            let command = if args.is_json() { Command::Exec(rest.to_vec()) } else { Command::Shell(rest.join(" ")) };
            let retries = flags.one("retries")?;
            let retries = retries.map(|text| {
                let hint = "write a number such as 3";
                text.parse().map_err(|_| Problem::new(format!("--retries={text} is not a count")).hint(hint))
            });
            Ok(Healthcheck::Check {
                command,
                interval: flags.duration("interval")?,
                timeout: flags.duration("timeout")?,
                start_period: flags.duration("start-period")?,
                start_interval: flags.duration("start-interval")?,
                retries: retries.transpose()?,
            })
        }
        other => Err(Problem::new(format!("HEALTHCHECK can't do `{other}`")).hint(hint)),
    }
}
