//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::figures::Spread;
use crate::raw::{RawFile, memcpy};

const PROBES: usize = 200;

#[derive(Debug, Clone)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub file_system: String,
    /// Microseconds that 4 KiB take to be appended to a zero-filled file and synced.
    pub disk_probe: Option<Spread>,
    /// GB/s of copying 64 MiB.
    pub memcpy_probe: f64,
}

impl Machine {
    /// Looks at the machine, and at the disk that this folder is on.
    pub fn look(folder: &Path) -> Result<Machine> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = field(&processors, "model name").unwrap_or("unknown");
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = field(&memory, "MemTotal").and_then(|size| size.split(' ').next()?.parse::<f64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Machine {
            processor: processor.to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: memory.unwrap_or(0.0) / f64::from(1 << 20),
            kernel: kernel.trim().to_owned(),
            file_system: file_system(folder).unwrap_or_else(|| "unknown".to_owned()),
            disk_probe: probe_disk(folder)?,
            memcpy_probe: probe_memory(),
        })
    }

    pub fn lines(&self) -> Vec<String> {
        let probe = self.disk_probe.map_or_else(String::new, |probe| {
            let Spread { low, median, high } = probe;
            format!("{median:.0} µs [{low:.0}..{high:.0}]")
        });
        vec![
            format!(
                "{}, {} cores, {:.0} GiB",
                self.processor, self.cores, self.memory_gib
            ),
            format!("Linux {}, stores on {}", self.kernel, self.file_system),
            format!("4 KiB appended to a zero-filled file and synced: {probe}, of {PROBES}"),
            format!("copying 64 MiB: {:.1} GB/s", self.memcpy_probe),
        ]
    }

    pub fn to_json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_gib": self.memory_gib,
            "kernel": self.kernel,
            "file_system": self.file_system,
            "append_and_sync_micros": self.disk_probe.map(|probe| probe.median),
            "memcpy_gb_per_second": self.memcpy_probe,
        })
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn file_system(folder: &Path) -> Option<String> {
    let mut df = Command::new("df");
    let output = df.arg("--output=fstype").arg(folder).output().ok()?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(output.lines().nth(1)?.trim().to_owned())
}

fn probe_disk(folder: &Path) -> Result<Option<Spread>> {
    let folder = tempfile::tempdir_in(folder)?;
    let file = RawFile::create(&folder.path().join("probe"))?;
    let mut micros = Vec::new();
    for _ in 0..PROBES {
        let began = Instant::now();
        file.append(&[0xa5; 4096])?;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(micros))
}

fn probe_memory() -> f64 {
    let from = vec![0xa5; 64 << 20];
    let mut to = vec![0x5a; from.len()];
    let times = (0..5).map(|_| memcpy(&from, &mut to).as_secs_f64());
    let seconds = Spread::of(times.collect()).map_or(f64::NAN, |spread| spread.median);
    from.len() as f64 / seconds / 1e9
}
