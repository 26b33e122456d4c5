//! `stack config`: the stack file as it is understood.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::error::{Error, Outcome};
use crate::cli::invoker::OutputFile;
use crate::cli::project::Context;
use crate::cli::registry;
use crate::cli::table::Table;
use crate::images::Reference;
use crate::planner::image_name;
use crate::spec::json_schema::json_schema;
use crate::spec::model::{Project, Service};
use crate::spec::{Diagnostic, Loaded, Options, Origin, Severity, explain, hash, render, select};

/// Print the stack file as it is understood, merged and filled in.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Services to print (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Form of the output: yaml or json
    #[arg(long, value_enum, default_value_t, value_name = "FORM", hide_possible_values = true)]
    format: Form,
    /// Only check, print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    listing: Listing,
    /// Leave `${…}` as it stands
    #[arg(long)]
    no_interpolate: bool,
    /// Add no defaults
    #[arg(long)]
    no_normalize: bool,
    /// Leave relative paths as they stand
    #[arg(long)]
    no_path_resolution: bool,
    /// Leave env_file and unset variables as they stand
    #[arg(long)]
    no_env_resolution: bool,
    /// Don't check services and resources against each other
    #[arg(long)]
    no_consistency: bool,
    /// Give images with the digests that they have at their registries
    #[arg(long, conflicts_with = "no_interpolate")]
    resolve_image_digests: bool,
    /// Print an override file that holds each service to the digest of its image
    #[arg(long, conflicts_with = "no_interpolate")]
    lock_image_digests: bool,
}

/// What to list instead of the whole.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
struct Listing {
    /// Print the names of the services
    #[arg(long = "services", id = "list_services")]
    services: bool,
    /// Print the names of the volumes
    #[arg(long)]
    volumes: bool,
    /// Print the names of the networks
    #[arg(long)]
    networks: bool,
    /// Print the names of the profiles
    #[arg(long)]
    profiles: bool,
    /// Print the names of the images
    #[arg(long)]
    images: bool,
    /// Print a service's configuration hash; `*` means all services
    #[arg(long, value_name = "SERVICE")]
    hash: Option<String>,
    /// Print the variables that `${…}` is filled from
    #[arg(long)]
    environment: bool,
    /// Print the variables that the file asks for
    #[arg(long)]
    variables: bool,
    /// Print the names of the models
    #[arg(long)]
    models: bool,
    /// Say where a value comes from, such as services.web.environment.LOG_LEVEL
    #[arg(long, value_name = "PATH")]
    explain: Option<String>,
    /// Print the JSON Schema of stack files, for editors; no file is read
    #[arg(long)]
    schema: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Form {
    /// YAML
    #[default]
    Yaml,
    /// JSON
    Json,
}

impl Config {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        if self.listing.schema {
            return self.print(context, &render::pretty(&json_schema()));
        }
        // Which variables a file asks for can be told whether they are set or not.
        let options = Options {
            no_interpolate: self.no_interpolate || self.listing.variables,
            no_normalize: self.no_normalize,
            no_path_resolution: self.no_path_resolution,
            no_env_resolution: self.no_env_resolution,
            no_consistency: self.no_consistency,
            all_resources: false,
            explain: self.listing.explain.is_some(),
        };
        let mut loaded = context.load_with(&self.services, options)?;
        for refusal in &loaded.refusals {
            let warning = Diagnostic { severity: Severity::Warning, ..refusal.clone() };
            writeln!(context.ui.err(), "{}", warning.render(context.ui.err_colour))?;
        }
        if !self.services.is_empty() && !options.no_interpolate {
            let chosen = select::select(&loaded.project, &self.services, true)?;
            select::restrict(&mut loaded.project, &chosen);
        }
        if self.resolve_image_digests || self.lock_image_digests {
            pin(&mut loaded.project).await?;
        }
        if let Some(path) = &self.listing.explain {
            return self.explain(context, &loaded, path);
        }
        // Nothing below asks where something stands: the tree is not held beside what is printed.
        loaded.origin = Origin::default();
        let text = match self.listing.render(&loaded)? {
            Some(text) => text,
            None if self.quiet => return Ok(0),
            None => self.render(context, &loaded)?,
        };
        self.print(context, &text)
    }

    fn explain(&self, context: &Context, loaded: &Loaded, path: &str) -> Outcome {
        let all = explain::explain(loaded, path)?;
        let text = match self.format {
            Form::Yaml => super::explain::render(&all, &std::env::current_dir().unwrap_or_default()),
            Form::Json => render::pretty(&serde_json::to_value(&all)?),
        };
        self.print(context, &text)
    }

    /// Writes to the file asked for, or to standard output.
    fn print(&self, context: &Context, text: &str) -> Outcome {
        match &self.output {
            Some(path) => {
                let mut file = OutputFile::create(path)?;
                file.write_all(text.as_bytes())?;
                file.finish()?;
            }
            None => context.ui.out().write_all(text.as_bytes())?,
        }
        Ok(0)
    }

    fn render(&self, context: &Context, loaded: &Loaded) -> Result<String, Error> {
        let on_host: Vec<&str> = loaded
            .project
            .services
            .iter()
            .filter(|(_, service)| is_host(service))
            .map(|(name, _)| name.as_str())
            .collect();
        if !on_host.is_empty() {
            let services = on_host.join(", ");
            context
                .ui
                .warn(format!("not portable: stack/host is made of this machine's own /usr (services: {services})"))?;
        }
        if self.no_interpolate {
            return Ok(self.raw(loaded));
        }
        if self.lock_image_digests {
            return Ok(self.written(&locked(&loaded.project)));
        }
        Ok(match self.format {
            Form::Yaml => render::yaml(&loaded.project),
            Form::Json => render::json(&loaded.project),
        })
    }

    /// The file as it was written, its parts merged.
    fn raw(&self, loaded: &Loaded) -> String {
        let mut tree = loaded.tree.clone();
        if let Some(services) = tree.get_mut("services").and_then(|services| services.as_object_mut()) {
            services.retain(|name, _| self.services.is_empty() || self.services.contains(name));
        }
        self.written(&tree)
    }

    fn written(&self, tree: &Value) -> String {
        match self.format {
            Form::Yaml => render::tree_yaml(tree),
            Form::Json => render::pretty(tree),
        }
    }
}

/// Gives every image the digest that it has at its registry, as docker compose writes it: `host/path:tag@digest`.
async fn pin(project: &mut Project) -> Result<(), Error> {
    let mut names = BTreeMap::new();
    for image in project.services.values().filter(|service| !is_host(service)).filter_map(|it| it.image.as_ref()) {
        names.insert(image.clone(), Reference::parse(image)?);
    }
    let references: Vec<Reference> = names.values().cloned().collect();
    let digests = registry::registries()?.resolve(&references).await?;
    let pinned = names.into_iter().zip(digests).map(|((image, name), digest)| {
        let pinned = if name.digest().is_some() { name.to_string() } else { format!("{name}@{digest}") };
        (image, pinned)
    });
    let pinned: BTreeMap<String, String> = pinned.collect();
    for image in project.services.values_mut().filter_map(|service| service.image.as_mut()) {
        if let Some(pinned) = pinned.get(image) {
            image.clone_from(pinned);
        }
    }
    Ok(())
}

/// A stack file with nothing but the images.
fn locked(project: &Project) -> Value {
    let images =
        project.services.iter().filter_map(|(name, it)| Some((name.clone(), json!({ "image": it.image.as_ref()? }))));
    json!({ "services": Value::Object(images.collect()) })
}

fn is_host(service: &Service) -> bool {
    service.image.as_deref().is_some_and(|image| image == "stack/host" || image.starts_with("stack/host:"))
}

impl Listing {
    /// The listing asked for, a line each; none if the whole is wanted.
    fn render(&self, loaded: &Loaded) -> Result<Option<String>, Error> {
        let project = &loaded.project;
        let lines: Vec<String> = if self.services {
            project.services.keys().cloned().collect()
        } else if self.volumes {
            project.volumes.keys().cloned().collect()
        } else if self.networks {
            project.networks.keys().cloned().collect()
        } else if self.profiles {
            loaded.all_profiles.iter().cloned().collect()
        } else if self.images {
            let image = |(name, service): (&String, &Service)| image_name(project, name, service);
            project.services.iter().map(image).collect::<BTreeSet<_>>().into_iter().collect()
        } else if let Some(wanted) = &self.hash {
            hashes(loaded, wanted)?
        } else if self.environment {
            loaded.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
        } else if self.models {
            let model = |model: &Value| model["model"].as_str().map(str::to_owned);
            project.models.values().filter_map(model).collect()
        } else if self.variables {
            return Ok(Some(variables(loaded)));
        } else {
            return Ok(None);
        };
        Ok(Some(lines.into_iter().map(|line| line + "\n").collect()))
    }
}

/// The variables that the file asks for, as a table.
fn variables(loaded: &Loaded) -> String {
    let mut table = Table::new(&["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"]);
    for (name, variable) in &loaded.variables {
        let required = variable.required.to_string();
        table.row([name.clone(), required, variable.default.clone(), variable.alternate.clone()]);
    }
    table.render()
}

/// `service hash` for the services of a comma-separated list, or for all.
fn hashes(loaded: &Loaded, wanted: &str) -> Result<Vec<String>, Error> {
    let services = &loaded.project.services;
    let names: Vec<String> = match wanted {
        "*" => services.keys().cloned().collect(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    let chosen = select::select(&loaded.project, &names, false)?;
    Ok(chosen.iter().map(|name| format!("{name} {}", hash::config_hash(&services[name]))).collect())
}
