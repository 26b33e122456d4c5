//! The stages of a Dockerfile and which of them a target needs.

use std::collections::BTreeSet;

use super::error::Problem;
use super::instruction::{From, Instruction, Kind};
use super::parse::Dockerfile;

/// A FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) from: From,
    /// Line of its FROM.
    pub(crate) line: usize,
    /// The FROM as written.
    pub(crate) text: String,
    pub(crate) instructions: Vec<Instruction>,
}

impl Stage {
    /// Its name, or its number.
    pub(crate) fn label(&self, index: usize) -> String {
        self.from.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

/// The ARGs before the first FROM, and the stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stages {
    pub(crate) globals: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
}

impl Stages {
    pub(crate) fn new(file: Dockerfile) -> Self {
        let (mut globals, mut stages) = (Vec::new(), Vec::<Stage>::new());
        for instruction in file.instructions {
            match (instruction.kind, stages.last_mut()) {
                (Kind::From(from), _) => stages.push(Stage {
                    from,
                    line: instruction.line,
                    text: instruction.text,
                    instructions: Vec::new(),
                }),
                (kind, Some(stage)) => stage.instructions.push(Instruction { kind, ..instruction }),
                (kind, None) => globals.push(Instruction { kind, ..instruction }),
            }
        }
        Self { globals, stages }
    }

    /// The stage that `--target` names, or the last one.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<usize, Problem> {
        let last = self.stages.len().saturating_sub(1);
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(last) };
        self.find(name, self.stages.len()).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
            let problem = Problem::new(format!("there is no stage `{name}`"));
            if names.is_empty() {
                problem.hint("no stage has a name; give one by FROM image AS name")
            } else {
                problem.hint(format!("the stages are {}", names.join(", ")))
            }
        })
    }

    /// The stage before `before` with that name or number.
    pub(crate) fn find(&self, name: &str, before: usize) -> Option<usize> {
        let named = |stage: &Stage| stage.from.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        let by_name = self.stages[..before].iter().rposition(named);
        by_name.or_else(|| name.parse().ok().filter(|index| *index < before))
    }

    /// The stage before `before` with that name; FROM knows no numbers.
    pub(crate) fn find_base(&self, name: &str, before: usize) -> Option<usize> {
        self.find(name, before).filter(|_| name.parse::<usize>().is_err())
    }

    /// The stages that `target` needs, itself included, `expand` giving a FROM's image its variables.
    pub(crate) fn needed(&self, target: usize, expand: impl Fn(&str) -> String) -> BTreeSet<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            let stage = &self.stages[index];
            open.extend(self.find_base(&expand(&stage.from.image), index));
            for instruction in &stage.instructions {
                match &instruction.kind {
                    Kind::Copy(copy) => open.extend(copy.from.as_ref().and_then(|name| self.find(name, index))),
                    Kind::Run(run) => {
                        let names = run.mounts.iter().filter_map(|mount| mount.from.as_ref());
                        open.extend(names.filter_map(|name| self.find(name, index)));
                    }
                    _ => {}
                }
            }
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_target_needs() {
        let text = "ARG B=common\nFROM x AS common\nFROM $B AS dev\nFROM common AS unused\nRUN false\nFROM common AS prod\n\
                    COPY --from=DEV /a /b\nFROM y\nRUN --mount=from=unused,target=/u true\n";
        let stages = Stages::new(Dockerfile::parse("Dockerfile", text).unwrap());
        let expand = |text: &str| text.replace("$B", "common");
        let needed = |name| stages.needed(stages.target(name).unwrap(), expand).into_iter().collect::<Vec<_>>();
        assert_eq!(needed(Some("prod")), [0, 1, 3]);
        assert_eq!(needed(None), [0, 2, 4]);
        assert!(stages.target(Some("nope")).unwrap_err().to_string().contains("common, dev, unused, prod"));
    }

    #[test]
    fn a_stage_never_finds_itself_or_a_later_one() {
        let stages = Stages::new(Dockerfile::parse("Dockerfile", "FROM b AS a\nFROM a AS b\n").unwrap());
        assert_eq!(stages.find_base("b", 0), None);
        assert_eq!(stages.find_base("a", 1), Some(0));
        assert_eq!((stages.find("0", 1), stages.find_base("0", 1)), (Some(0), None));
    }
}
