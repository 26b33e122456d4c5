//! Making containers: record, folders, addresses, volumes. Nothing runs yet.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use fs_err as fs;

use super::control::{Action, Failure};
use super::filter;
use super::intent::Desired;
use super::networks::new_id;
use super::paths::Paths;
use super::record::{self, Identity, Surroundings};
use super::recover;
use super::seed;
use super::state::{self, Container, Joins, MountRecord, Record, RunState, UserNamespace, VERSION};
use super::supervisor::{Supervisor, blocking, tracing_line};
use super::volumes;
use crate::images::{Image, Store};
use crate::planner::{Replaced, image_name};
use crate::spec::model::Service;

impl Supervisor {
    /// Makes a container: its record, folders, addresses, volumes. Nothing runs yet.
    pub(crate) async fn create_container(
        self: &Rc<Self>,
        desired: &Arc<Desired>,
        mut identity: Identity,
        service: &Service,
        replaces: Option<Replaced>,
    ) -> Result<String, Failure> {
        let _permit = self.launches.acquire().await;
        let (desired, service) = (desired.clone(), service.clone());
        identity.id = new_id().map_err(|e| Failure::new(format!("no random number: {e}")))?;
        // Until the container's record names the image, nothing else keeps it.
        let lease = self.store.lease().map_err(|e| Failure::new(e.to_string()))?;
        let reference = image_name(&desired.project, &identity.service, &service);
        let image = self.store.find(&reference).map_err(|e| Failure::new(e.to_string()))?.ok_or_else(|| {
            Failure::new(format!("image {reference} of service {} is not in the store", identity.service))
        })?;
        let neighbours = self.containers();
        let surroundings = self.surroundings(&desired, &identity, &service, &image, replaces, &neighbours)?;
        let hostname = hostname(&service, &surroundings.joins, &identity.id, &neighbours);
        let mut record = record::record(&desired, identity, &service, &image, hostname, surroundings)?;
        super::open_files::set(&mut record, &self.open_files);
        let (paths, store, boot_id) = (self.paths.clone(), self.store.clone(), self.boot_id.clone());
        let guests = self.guests.clone();
        let (container, said) = blocking(move || {
            let (project, id) = (record.project.clone(), record.id.clone());
            let decide = |record: &Record| guests.decide(&paths, &store, record, &neighbours);
            make(&paths, &store, &image, &desired, record, boot_id, decide).inspect_err(|_| {
                if let Err(e) = recover::clear(&paths, &project, &id, &paths.run_state(&project, &id)) {
                    tracing_line(&format!("what was made of container {id} could not be removed: {e}"));
                }
            })
        })
        .await??;
        drop(lease);
        let record = container.record.clone();
        for message in said {
            self.tell(&container, Action::Warning { message });
        }
        self.insert(container);
        if !record.oneoff {
            self.inherited(&record)?;
        }
        Ok(record.id.clone())
    }

    fn surroundings(
        &self,
        desired: &Desired,
        identity: &Identity,
        service: &Service,
        image: &Image,
        replaces: Option<Replaced>,
        neighbours: &[Container],
    ) -> Result<Surroundings, Failure> {
        let mut inherited =
            if identity.oneoff { BTreeMap::new() } else { self.estate(&identity.service, identity.number) };
        inherited.extend(replaces.map(|replaced| replaced.volumes).unwrap_or_default());
        let mut mounts = record::mounts(desired, service, image, |target| match inherited.get(target) {
            Some(volume) => Ok(volume.clone()),
            None => new_id().map_err(|e| Failure::new(format!("no random number: {e}"))),
        })?;
        let mut shares = BTreeMap::new();
        let mut other = |reference: &str| -> Result<String, Failure> {
            let found = match reference.split_once(':') {
                Some(("service", name)) => neighbours
                    .iter()
                    .filter(|c| c.record.service == name && !c.record.oneoff)
                    .min_by_key(|c| c.record.number),
                Some(("container", name)) => {
                    neighbours.iter().find(|c| c.record.name == name || c.record.id.starts_with(name))
                }
                _ => None,
            };
            let found = found.ok_or_else(|| {
                Failure::new(format!("service {}: no container of {reference} to share with", identity.service))
            })?;
            shares.insert(found.record.service.clone(), found.record.id.clone());
            Ok(found.record.id.clone())
        };
        let mut join = |mode: Option<&String>| match mode.map(String::as_str) {
            None | Some("" | "private" | "shareable") => Ok(None),
            Some(mode @ ("host" | "none")) => Ok(Some(mode.to_owned())),
            Some(reference) => other(reference).map(Some),
        };
        let joins = Joins {
            net: match service.network_mode.as_deref() {
                Some("host" | "none") => service.network_mode.clone(),
                Some(mode) if mode.starts_with("service:") || mode.starts_with("container:") => {
                    join(service.network_mode.as_ref())?
                }
                _ => None,
            },
            pid: join(service.pid.as_ref())?,
            ipc: join(service.ipc.as_ref())?,
            uts: join(service.uts.as_ref())?,
            cgroup: join(service.cgroup.as_ref())?,
        };
        for reference in &service.volumes_from {
            let (reference, read_only) = match reference.rsplit_once(':') {
                Some((reference, "ro")) => (reference, true),
                Some((reference, "rw")) => (reference, false),
                _ => (reference.as_str(), false),
            };
            let qualified =
                if reference.starts_with("container:") { reference.to_owned() } else { format!("service:{reference}") };
            let id = other(&qualified)?;
            let theirs =
                neighbours.iter().find(|c| c.record.id == id).map(|c| c.record.mounts.clone()).unwrap_or_default();
            for mount in theirs {
                let own = mounts.iter().position(|own| own.target == mount.target);
                let asked = service.volumes.iter().any(|own| own.target == mount.target);
                // What only the image asks for gives way.
                match own.filter(|_| !asked) {
                    Some(own) if mounts[own].anonymous => drop(mounts.remove(own)),
                    _ if own.is_some() => continue,
                    _ => {}
                }
                // What is another's goes with the other.
                mounts.push(MountRecord { read_only: mount.read_only || read_only, anonymous: false, ..mount });
            }
        }
        let endpoints = if joins.net.is_some() { Vec::new() } else { self.endpoints(desired, identity, service)? };
        Ok(Surroundings { endpoints, mounts, joins, shares })
    }
}

/// Writes a container's files, its record last; what there is to say of its volumes.
fn make(
    paths: &Paths,
    store: &Store,
    image: &Image,
    desired: &Desired,
    mut record: Record,
    boot_id: String,
    decide: impl FnOnce(&Record) -> io::Result<UserNamespace>,
) -> Result<(Container, Vec<String>), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {} could not be made: {e}", record.name));
    // What can be refused, before anything is made.
    let profile = filter::read(&record.config, &record.service, &desired.source.working_dir)?;
    // The run state comes first: without a record it tells the next supervisor what was left half-made.
    let state = RunState { version: VERSION, boot_id, ..RunState::default() };
    state::write_run_state(paths, &record.project, &record.id, &state).map_err(|e| failed(&e))?;
    let home = paths.container(&record.id);
    for folder in ["upper", "work", "log"] {
        fs::create_dir_all(home.join(folder)).map_err(|e| failed(&e))?;
    }
    let objects = paths.file_objects(&record.project, &record.id);
    for key in record.files.keys() {
        fs::create_dir_all(&objects).map_err(|e| failed(&e))?;
        fs::write(objects.join(key), &desired.objects[key]).map_err(|e| failed(&e))?;
    }
    let mut said = Vec::new();
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        said.extend(fill_volume(paths, store, image, &record, mount)?);
    }
    if let Some(profile) = profile {
        fs::write(paths.filter(&record.id), profile).map_err(|e| failed(&e))?;
    }
    record.user_namespace = decide(&record).map_err(|e| failed(&e))?;
    state::write_record(paths, &record).map_err(|e| failed(&e))?;
    Ok((Container { record: Arc::new(record), state }, said))
}

/// A container in another's network has the other's name, one in the host's network the host's.
fn hostname(service: &Service, joins: &Joins, id: &str, neighbours: &[Container]) -> String {
    let own = || super::state::short(id).to_owned();
    let joined = match joins.net.as_deref() {
        None | Some("none") => None,
        Some("host") => Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
        Some(other) => neighbours.iter().find(|c| c.record.id == other).map(|c| c.record.hostname.clone()),
    };
    service.hostname.clone().or(joined).unwrap_or_else(own)
}

/// Makes a container's volume and fills it from the image; what there is to say of that.
fn fill_volume(
    paths: &Paths,
    store: &Store,
    image: &Image,
    record: &Record,
    mount: &MountRecord,
) -> Result<Option<String>, Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(format!("volume {} of container {}: {e}", mount.source, record.name));
    if mount.anonymous {
        let volume = volumes::Volume {
            project: record.project.clone(),
            labels: BTreeMap::from([("com.docker.volume.anonymous".to_owned(), String::new())]),
            hash: String::new(),
            made_for: record.id.clone(),
            ..volumes::unowned(&mount.source)
        };
        volumes::ensure(paths, &volume).map_err(|e| failed(&e))?;
    }
    let volume = volumes::find(paths, &mount.source).map_err(|e| failed(&e))?.ok_or_else(|| failed(&"it is gone"))?;
    seed::fill(paths, store, image, volume, mount).map_err(|e| failed(&e))
}
