//! `smg mesh secret`: what a cluster needs before it starts.

use clap::Command;

use super::say;
use crate::transport::trust::MeshSecret;

pub(super) fn command() -> Command {
    Command::new("mesh")
        .about("What a cluster needs before it starts")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("secret").about("Print a new mesh secret; give it to every node of a cluster"))
}

/// Prints a new one.
pub(super) fn secret() {
    say(&format!("{}\n", MeshSecret::generate().expose()));
}
