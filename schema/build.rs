//! Makes cargo embed a migration that was added: the folder is read by a macro, which cargo cannot see.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
