//! Finds the programs of a server, and installs their package where it is missing and may be. Those of another version are
//! named by the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The programs of a server, and where they come from.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// The programs that are needed, such as `initdb` and `postgres`.
    pub programs: &'static [&'static str],
    /// The Debian package that brings them.
    pub debian: &'static str,
    /// Folders to look in beside those of `PATH`; a `*` stands for one folder of any name, the last in order first.
    pub folders: &'static [&'static str],
}

/// The folder that holds all programs of `package`.
///
/// Looks in `PATH`, then in the package's own folders; what is missing is installed as a Debian package, if this user is
/// root and `apt-get` is there.
///
/// # Errors
/// When a program is missing and cannot be installed; the message says what to install.
pub fn find_or_install(package: &Package) -> Result<PathBuf> {
    if let Some(folder) = find(package) {
        return Ok(folder);
    }
    let wanted = package.programs.join(", ");
    if !rustix::process::geteuid().is_root() || !is_there("apt-get") {
        bail!("{wanted} not found: install the package `{}` (Debian's name) and try again", package.debian);
    }
    println!("installing the Debian package {} for {wanted}", package.debian);
    apt_get(&["update", "-qq"])?;
    apt_get(&["install", "-y", "-qq", "--no-install-recommends", package.debian])?;
    find(package)
        .with_context(|| format!("{} is installed, and {wanted} not found all the same", package.debian))
}

/// What the environment's `variable` names instead of the machine's own: a file or a folder, if it is set.
///
/// # Errors
/// When it names nothing that there is: a run that fell back to another version would prove nothing about the wanted one.
pub(crate) fn named(variable: &str) -> Result<Option<PathBuf>> {
    named_as(variable, std::env::var_os(variable))
}

fn named_as(variable: &str, value: Option<OsString>) -> Result<Option<PathBuf>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    // The server is started in a folder of its own. A link stays as it is: some programs go by the name they are called.
    let path = std::path::absolute(&value)?;
    ensure!(path.exists(), "{variable} names {}, which does not exist", path.display());
    Ok(Some(path))
}

fn find(package: &Package) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(package.folders.iter().flat_map(|pattern| expand(pattern)));
    folders.into_iter().find(|folder| package.programs.iter().all(|program| folder.join(program).is_file()))
}

/// The folders that a pattern with at most one `*` stands for, the last in order first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let mut names: Vec<PathBuf> = std::fs::read_dir(before)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    names.sort();
    names.into_iter().rev().map(|folder| folder.join(after.trim_start_matches('/'))).collect()
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}

fn apt_get(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
    // A server that starts with its package would be the machine's own.
    command.env("RUNLEVEL", "1").stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().context("cannot start apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed: {status}", words.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_what_there_is_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "").expect("a file");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert_eq!(named_as("X", None).expect("not set"), None);
        assert_eq!(named_as("X", Some("".into())).expect("empty"), None);
        assert_eq!(named_as("X", Some(link.clone().into())).expect("a link"), Some(link));
        let missing = folder.path().join("missing");
        let error = named_as("WINDLASS_X", Some(missing.clone().into())).expect_err("nothing is there");
        assert_eq!(
            error.to_string(),
            format!("WINDLASS_X names {}, which does not exist", missing.display())
        );
        assert!(named_as("X", Some(".".into())).expect("here").is_some_and(|path| path.is_absolute()));
    }

    #[test]
    fn programs_are_found_in_the_path_and_in_folders_with_a_star() {
        let folder = tempfile::tempdir().expect("a folder");
        for version in ["14", "15"] {
            std::fs::create_dir_all(folder.path().join(version).join("bin")).expect("a folder");
            std::fs::write(folder.path().join(version).join("bin/windlass-no-such-server"), "")
                .expect("a file");
        }
        let pattern = format!("{}/*/bin", folder.path().display()).leak();
        let folders: &'static [&'static str] = vec![&*pattern].leak();
        let package = Package { programs: &["windlass-no-such-server"], debian: "none", folders };
        assert_eq!(find(&package), Some(folder.path().join("15/bin")));
        assert_eq!(find(&Package { programs: &["windlass-no-such-server", "other"], ..package }), None);
        assert!(find(&Package { programs: &["sh"], debian: "dash", folders: &[] }).is_some());
    }
}
