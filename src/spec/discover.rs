//! Which files make up the project, and which variables it is interpolated with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Kind};
use super::dotenv::{self, Variables};
use super::environment;
use super::limits;
use super::load::{LoadRequest, Options};
use super::loader::Loader;
use super::origin::Set;
use super::session::{Session, clean};

/// Names looked for in each directory, strongest first, with the override files that belong to them.
const NAMES: [(&str, &[&str]); 6] = [
    ("stack.yaml", OWN_OVERRIDES),
    ("stack.yml", OWN_OVERRIDES),
    ("compose.yaml", COMPOSE_OVERRIDES),
    ("compose.yml", COMPOSE_OVERRIDES),
    ("docker-compose.yml", COMPOSE_OVERRIDES),
    ("docker-compose.yaml", COMPOSE_OVERRIDES),
];
const OWN_OVERRIDES: &[&str] = &["stack.override.yaml", "stack.override.yml"];
const COMPOSE_OVERRIDES: &[&str] =
    &["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// Global flags as given, plus the caller's directory and environment.
#[derive(Debug, Clone, Default)]
pub struct ProjectFlags {
    /// `-f`, repeatable; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--env-file`, repeatable.
    pub env_files: Vec<PathBuf>,
    /// `--profile`, repeatable.
    pub profiles: Vec<String>,
    /// Working directory of the caller, absolute.
    pub cwd: PathBuf,
    /// Environment of the caller.
    pub environment: BTreeMap<String, String>,
    /// Services named by arguments.
    pub services: Vec<String>,
    /// Switches of `stack config`.
    pub options: Options,
}

/// Finds the stack files and `.env` files that `flags` mean.
///
/// Order of strength: flag, then environment (`COMPOSE_FILE`, `COMPOSE_PROJECT_NAME`, `COMPOSE_PROFILES`,
/// `COMPOSE_ENV_FILES`), then `.env`, then the search upwards from the working directory.
pub fn discover(flags: &ProjectFlags, loader: &dyn Loader) -> Result<LoadRequest, Diagnostics> {
    let mut search = Search {
        flags,
        session: Session::new(loader, flags.options, None),
        environment: flags.environment.clone(),
        env_files: Vec::new(),
        set: BTreeMap::new(),
    };
    search.session.sudo = flags.environment.contains_key("SUDO_UID");
    let request = search.request();
    let warnings = search.session.finish()?;
    let mut request = request.unwrap_or_default();
    request.warnings = warnings;
    Ok(request)
}

struct Search<'f, 'a> {
    flags: &'f ProjectFlags,
    session: Session<'a>,
    environment: BTreeMap<String, String>,
    env_files: Vec<PathBuf>,
    set: BTreeMap<String, Set>,
}

impl Search<'_, '_> {
    fn request(&mut self) -> Option<LoadRequest> {
        let flags = self.flags;
        let given: Vec<PathBuf> = flags.files.iter().map(|file| self.absolute(file)).collect();
        let first_directory = match &flags.project_directory {
            Some(directory) => self.absolute(directory),
            None => given.first().map_or_else(|| flags.cwd.clone(), |file| self.directory_of(file)),
        };
        let explicit = self.explicit_env_files();
        match &explicit {
            Some(files) => self.read_env_files(&files.clone(), true),
            None => self.read_env_files(&[first_directory.join(".env")], false),
        }
        let files = if given.is_empty() { self.found(&first_directory)? } else { given };
        let working_dir = match &flags.project_directory {
            Some(_) => first_directory.clone(),
            None => files.first().map_or_else(|| flags.cwd.clone(), |file| self.directory_of(file)),
        };
        if explicit.is_none() && working_dir != first_directory {
            self.read_env_files(&[working_dir.join(".env")], false);
        }
        let set = |name: &str| self.environment.get(name).filter(|value| !value.is_empty()).cloned();
        let profiles = if flags.profiles.is_empty() {
            set("COMPOSE_PROFILES").map(|text| split(&text, ",")).unwrap_or_default()
        } else {
            flags.profiles.clone()
        };
        Some(LoadRequest {
            files,
            working_dir,
            project_name: flags.project_name.clone().or_else(|| set("COMPOSE_PROJECT_NAME")),
            profiles,
            environment: std::mem::take(&mut self.environment),
            env_files: std::mem::take(&mut self.env_files),
            set: std::mem::take(&mut self.set),
            services: flags.services.clone(),
            options: flags.options,
            warnings: Vec::new(),
        })
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        if path.as_os_str() == "-" { path.to_owned() } else { clean(&self.flags.cwd.join(path)) }
    }

    fn directory_of(&self, file: &Path) -> PathBuf {
        let parent = file.parent().filter(|parent| parent.is_absolute());
        parent.map_or_else(|| self.flags.cwd.clone(), Path::to_owned)
    }

    /// The environment files that flags or `COMPOSE_ENV_FILES` name; an empty list where they are switched off.
    fn explicit_env_files(&self) -> Option<Vec<PathBuf>> {
        if !self.flags.env_files.is_empty() {
            return Some(self.flags.env_files.iter().map(|file| self.absolute(file)).collect());
        }
        if let Some(text) = self.environment.get("COMPOSE_ENV_FILES").filter(|text| !text.is_empty()) {
            return Some(split(text, ",").iter().map(|file| self.absolute(Path::new(file))).collect());
        }
        let off = self.environment.get("COMPOSE_DISABLE_ENV_FILE").map(|text| text.to_ascii_lowercase());
        off.is_some_and(|text| matches!(text.as_str(), "1" | "t" | "true")).then(Vec::new)
    }

    /// Adds the variables of `files` below those known: a later file wins over an earlier one, all of them lose
    /// against the environment.
    fn read_env_files(&mut self, files: &[PathBuf], required: bool) {
        let mut known = Variables::new();
        let mut lines = BTreeMap::new();
        for path in files {
            if !required && !self.session.loader.is_file(path) {
                continue;
            }
            let Some((file, text)) = self.session.read(path, limits::ENV_FILE_BYTES, "env file", None) else {
                continue;
            };
            let mut unset = BTreeSet::new();
            let lookup = |name: &str| self.environment.get(name).cloned();
            let outcome = dotenv::parse(&text, &lookup, &mut known, &mut unset);
            environment::report(&mut self.session, file, outcome, &unset);
            self.env_files.push(path.clone());
            lines.extend(dotenv::lines(&text).map(|(name, line)| (name.to_owned(), (path.clone(), line))));
        }
        for (name, value) in known {
            if !self.environment.contains_key(&name) {
                let (file, line) = lines.remove(&name).unwrap_or_default();
                self.set.insert(name.clone(), Set { value: value.clone(), file, line });
                self.environment.insert(name, value);
            }
        }
    }

    /// The files of `COMPOSE_FILE`, or those found in `directory` or above it.
    fn found(&mut self, directory: &Path) -> Option<Vec<PathBuf>> {
        if let Some(text) = self.environment.get("COMPOSE_FILE").filter(|text| !text.is_empty()) {
            let separator = self.environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
            let separator = separator.map_or(":", String::as_str);
            return Some(split(text, separator).iter().map(|file| self.absolute(Path::new(file))).collect());
        }
        for directory in directory.ancestors() {
            let present = |name: &str| Some(directory.join(name)).filter(|path| self.session.loader.is_file(path));
            let mut candidates = NAMES.iter().filter_map(|(name, overrides)| Some((present(name)?, *overrides)));
            let Some((base, overrides)) = candidates.next() else { continue };
            let others: Vec<String> = candidates.map(|(path, _)| path.display().to_string()).collect();
            let extra = overrides.iter().find_map(|name| present(name));
            if !others.is_empty() {
                let message =
                    format!("several stack files found: {} is used, {} not", base.display(), others.join(", "));
                self.session.report(Diagnostic::warning(Kind::File, message).hint("choose with -f"));
            }
            return Some([base].into_iter().chain(extra).collect());
        }
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        let message = format!("no configuration file: no stack file in {} or any directory above", directory.display());
        let hint = format!("looked for {}; name another one with -f", names.join(", "));
        self.session.report(Diagnostic::error(Kind::File, message).hint(hint));
        None
    }
}

fn split(text: &str, separator: &str) -> Vec<String> {
    text.split(separator).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::loader::MapLoader;
    use super::*;

    fn find(files: &[(&str, &str)], environment: &[(&str, &str)]) -> LoadRequest {
        let loader = MapLoader::new(files.iter().copied());
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let flags = ProjectFlags { cwd: "/p/sub".into(), environment, ..ProjectFlags::default() };
        discover(&flags, &loader).unwrap()
    }

    #[test]
    fn searches_upwards_with_override() {
        let request = find(&[("/p/compose.yaml", ""), ("/p/compose.override.yml", ""), ("/p/.env", "A=1")], &[]);
        assert_eq!(request.files, [PathBuf::from("/p/compose.yaml"), "/p/compose.override.yml".into()]);
        assert_eq!(request.working_dir, PathBuf::from("/p"));
        assert_eq!(request.environment["A"], "1");
    }

    #[test]
    fn environment_wins_over_dotenv() {
        let files = [("/p/sub/.env", "COMPOSE_FILE=b.yaml\nA=dot\nCOMPOSE_PROFILES=x,y"), ("/p/sub/b.yaml", "")];
        let request = find(&files, &[("A", "shell")]);
        assert_eq!(request.files, [PathBuf::from("/p/sub/b.yaml")]);
        assert_eq!(request.environment["A"], "shell");
        assert_eq!(request.profiles, ["x", "y"]);
    }

    #[test]
    fn own_names_come_first() {
        let request = find(&[("/p/sub/stack.yaml", ""), ("/p/sub/compose.yaml", "")], &[]);
        assert_eq!(request.files, [PathBuf::from("/p/sub/stack.yaml")]);
        assert_eq!(request.warnings.len(), 1);
    }
}
