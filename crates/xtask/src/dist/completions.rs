//! Completions for shells, from the command lines.

use std::fs;
use std::path::Path;

use clap::{Arg, ValueHint};
use clap_complete::{Shell, generate};

use crate::{Result, context};

/// The shells, and where below `share` each looks for completions.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes the completions below a `share` directory.
pub(super) fn write(share: &Path) -> Result<()> {
    for command in super::commands() {
        let mut command = command.mut_args(hinted);
        let name = command.get_name().to_owned();
        for (shell, directory) in SHELLS {
            let file = match shell {
                Shell::Zsh => format!("_{name}"),
                Shell::Fish => format!("{name}.fish"),
                _ => name.clone(),
            };
            let directory = share.join(directory);
            fs::create_dir_all(&directory).map_err(context(directory.display()))?;
            let mut text = vec![];
            generate(shell, &mut command, &name, &mut text);
            fs::write(directory.join(&file), text).map_err(context(file))?;
        }
    }
    Ok(())
}

/// Adds what a value stands for, which the programs need not know.
fn hinted(argument: Arg) -> Arg {
    let hint = match argument.get_id().as_str() {
        "socket" => ValueHint::FilePath,
        "chdir" => ValueHint::DirPath,
        "command" => ValueHint::CommandWithArguments,
        _ => return argument,
    };
    argument.value_hint(hint)
}
