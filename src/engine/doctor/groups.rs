//! Control groups: which limits hold.

use super::{Finding, Verdict};
use crate::runtime::cgroup;

const AREA: &str = "limits";

/// Controllers, the limits that they hold, and what a container without is.
const LIMITS: [(&str, &str); 5] = [
    ("memory", "mem_limit, mem_reservation, memswap_limit"),
    ("cpu", "cpus, cpu_shares, cpu_quota"),
    ("pids", "pids_limit"),
    ("cpuset", "cpuset"),
    ("io", "blkio_config"),
];

pub(super) fn examine() -> Vec<Finding> {
    let survey = match cgroup::survey() {
        Ok(survey) => survey,
        Err(e) => return vec![Finding::ok(AREA, "control groups", "").required(&Err::<(), _>(e))],
    };
    let groups = Finding::ok(AREA, "control groups", survey.version).required(&survey.usable);
    let remedy = "mount cgroup2 at /sys/fs/cgroup, writable; inside of a container: `privileged: true`, `cgroup: host`";
    let mut findings = vec![groups.remedy(remedy)];
    for (controller, limits) in LIMITS {
        let found = survey.controllers.iter().find(|(name, _)| *name == controller).map(|(_, found)| found);
        let loss = found.and_then(|found| found.as_ref().err());
        let loss = loss.map(|reason| format!("{reason}; a service that asks for {limits} doesn't start"));
        findings.push(Finding::ok(AREA, controller, limits).or_loss(loss.is_none(), loss.unwrap_or_default()).remedy(
            "switch it on where the kernel is started (`cgroup_enable=`), or move what runs in the group above",
        ));
    }
    findings.push(
        Finding::ok(AREA, "swap", "memswap_limit")
            .or_loss(survey.swap, "not counted: `memswap_limit` can't be held, and memory limits are without swap")
            .remedy("start the kernel with `swapaccount=1`"),
    );
    findings.push(match &survey.devices {
        Ok(how) => Finding::ok(AREA, "devices", *how),
        Err(reason) => Finding::new(
            AREA,
            "devices",
            Verdict::Fallback,
            format!("{reason}; containers are kept from devices only by having no nodes and no right to make them"),
        )
        .remedy("grant this process the right to load programs (CAP_BPF, CAP_SYS_ADMIN)"),
    });
    findings.push(
        Finding::ok(AREA, "kill at once", "a whole container by one write")
            .or_loss(survey.kill, "containers are killed process by process, in rounds")
            .remedy("a kernel from 5.14 on has it, where cgroup2 is mounted"),
    );
    findings.push(
        Finding::ok(AREA, "birth into a group", "no process ever runs outside of its limits")
            .or_loss(
                survey.birth,
                "the first process moves into its group itself, before it runs anything of the image",
            )
            .remedy("where cgroup2 is mounted, a kernel from 5.7 on has it"),
    );
    findings
}
