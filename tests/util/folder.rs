//! Folders for the files of a test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A fresh folder, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        // Not in the build's own folder: the path of a Unix socket must be short.
        let (temp, own) = (std::env::temp_dir(), std::process::id());
        // In a namespace of its own, each process has the same few numbers.
        for number in 0.. {
            let path = temp.join(format!("reactor-{own}-{name}-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Folder(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        unreachable!("there is a number that is free")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
