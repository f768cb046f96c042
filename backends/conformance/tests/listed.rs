//! Every property that is written is also stamped: one that nobody runs proves nothing.

use std::fs;
use std::path::Path;

#[test]
fn every_property_is_in_the_list() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let list = fs::read_to_string(src.join("list.rs")).unwrap();
    let mut files: Vec<_> =
        fs::read_dir(src.join("properties")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(src.join("transactions.rs"));
    let mut found = 0;
    for file in files {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let name = rest.split(['<', '(']).next().unwrap();
            let listed = list.lines().filter(|line| line.trim() == format!("{name};")).count();
            assert_eq!(listed, 1, "{name} of {} must stand in list.rs once", file.display());
            found += 1;
        }
    }
    let is_name = |line: &&str| {
        line.strip_suffix(';')
            .is_some_and(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()))
    };
    assert_eq!(list.lines().map(str::trim).filter(is_name).count(), found, "the list names only what exists");
}
