//! Shell completion: small scripts that ask the program itself, through the hidden command
//! `__complete`, and the answers.
//!
//! The protocol is cobra's, so scripts made for etcdctl keep working: one completion a line, its
//! description after a tab, at the end `:` and a number whose bit 4 means "no file names".

use clap::{Arg, Command};

use super::argv::{FlagKind, Flags, Word, find};
use super::printer::Printer;
use super::spec::Program;
use crate::go;

const FILES: u32 = 0;
const NO_FILES: u32 = 4;

/// The script for the arguments of `completion`, or an error text about them.
pub(super) fn check(program: Program, args: &[Word]) -> Result<String, String> {
    let [shell] = args else {
        return Err(format!("accepts 1 arg(s), received {}", args.len()));
    };
    let known = std::str::from_utf8(shell).ok().and_then(|shell| script(program, shell));
    known.ok_or_else(|| {
        let name = program.name();
        format!("invalid argument {} for \"{name} completion\"", go::quote(shell))
    })
}

/// The script for a shell; None if the shell is unknown.
pub(super) fn script(program: Program, shell: &str) -> Option<String> {
    let template = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        _ => return None,
    };
    Some(template.replace("PROGRAM", program.name()))
}

/// Prints the completions of a command line whose last word is unfinished.
pub(super) fn complete(root: &Command, words: &[Word], described: bool, printer: &Printer) {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_slice(), before),
        None => (b"".as_slice(), words),
    };
    let found = find(root, before);
    let (choices, directive) = choices(&found.path, before, &found.words, last);
    for (choice, description) in choices {
        if described && !description.is_empty() {
            printer.line(format!("{choice}\t{description}"));
        } else {
            printer.line(choice);
        }
    }
    printer.line(format!(":{directive}"));
    let name = if directive == FILES { "Default" } else { "NoFileComp" };
    printer.err(format!("Completion ended with directive: ShellCompDirective{name}\n"));
}

type Choices = Vec<(String, String)>;

fn choices(path: &[&Command], before: &[Word], words: &[Word], last: &[u8]) -> (Choices, u32) {
    let flags = Flags::of(path);
    let args: Vec<_> = path
        .iter()
        .enumerate()
        .flat_map(|(depth, command)| {
            let own = depth + 1 == path.len();
            command.get_arguments().filter(move |arg| own || arg.is_global_set())
        })
        .collect();
    let Ok(last) = std::str::from_utf8(last) else {
        // Names are UTF-8, so none begins with other bytes.
        return (Vec::new(), FILES);
    };
    if let Some((name, _)) = last.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
        return values_of(&args, name);
    }
    if let Some(flag) = before.last().and_then(|word| std::str::from_utf8(word).ok())
        && let Some(name) = flag.strip_prefix("--").or(by_short(&flags, flag).as_deref())
        && flags.get(name).is_some_and(|flag| flag.kind != FlagKind::Bool)
    {
        return values_of(&args, name);
    }
    if last.starts_with('-') {
        return (flag_names(path, &args, last), NO_FILES);
    }
    let command = path[path.len() - 1];
    let mut subcommands: Choices = command
        .get_subcommands()
        .filter(|command| command.get_name().starts_with(last))
        .map(|command| {
            let about = command.get_about().map(ToString::to_string);
            (command.get_name().to_string(), about.unwrap_or_default())
        })
        .collect();
    subcommands.sort();
    if command.get_subcommands().next().is_some() {
        return (subcommands, NO_FILES);
    }
    match command.get_positionals().next() {
        Some(shell) if words.is_empty() => (possible(shell, last), NO_FILES),
        _ => (Vec::new(), FILES),
    }
}

fn by_short(flags: &Flags, word: &str) -> Option<String> {
    let letter = *word.strip_prefix('-')?.as_bytes().first()?;
    flags.iter().find(|flag| flag.has_letter(letter)).map(|flag| flag.name.clone())
}

/// All values that a flag can have; the shell picks those that match.
fn values_of(args: &[&Arg], name: &str) -> (Choices, u32) {
    let arg = args.iter().find(|arg| arg.get_long() == Some(name));
    (arg.map(|arg| possible(arg, "")).unwrap_or_default(), FILES)
}

fn possible(arg: &Arg, last: &str) -> Choices {
    arg.get_possible_values()
        .iter()
        .map(|value| value.get_name().to_string())
        .filter(|name| name.starts_with(last))
        .map(|name| (name, String::new()))
        .collect()
}

fn flag_names(path: &[&Command], args: &[&Arg], last: &str) -> Choices {
    let mut names: Choices = args
        .iter()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", arg.get_long()?), help))
        })
        .collect();
    let name = path[path.len() - 1].get_name();
    names.push(("--help".into(), format!("help for {name}")));
    names.retain(|(name, _)| name.starts_with(last));
    names.sort();
    names
}

const BASH: &str = r#"# bash completion for PROGRAM                              -*- shell-script -*-

_PROGRAM_complete() {
    local answer directive line
    local current="${COMP_WORDS[COMP_CWORD]}"
    answer="$("${COMP_WORDS[0]}" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)"
    directive="${answer##*:}"
    answer="${answer%:*}"
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -n "$line" ]] && COMPREPLY+=("$line")
    done <<<"$answer"
    if [[ ${#COMPREPLY[@]} -eq 0 && $((directive & 4)) -eq 0 ]]; then
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "$current")
    fi
}

complete -F _PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM

# zsh completion for PROGRAM                              -*- shell-script -*-

_PROGRAM() {
    local answer directive line
    local -a found
    answer="$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"
    directive="${answer##*:}"
    answer="${answer%:*}"
    for line in "${(@f)answer}"; do
        [[ -z "$line" ]] && continue
        line="${line//:/\\:}"
        found+=("${line/$'\t'/:}")
    done
    if (( ${#found} )); then
        _describe 'PROGRAM' found
    elif (( ! (directive & 4) )); then
        _files
    fi
}

if [ "$funcstack[1]" = "_PROGRAM" ]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
"#;

const FISH: &str = r#"# fish completion for PROGRAM                              -*- shell-script -*-

function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l answer ($words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null)
    set -l directive (string sub --start 2 -- $answer[-1])
    set -e answer[-1]
    if test (count $answer) -gt 0
        printf '%s\n' $answer
    else if test (math "$directive % 8") -lt 4
        __fish_complete_path (commandline -ct)
    end
end

complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for PROGRAM                              -*- shell-script -*-

Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if (-not $wordToComplete) { $words += '""' }
    $answer = @(& $commandAst.CommandElements[0].Value __complete @words 2>$null)
    $answer | Select-Object -SkipLast 1 | ForEach-Object {
        $name, $description = $_ -split "`t", 2
        if (-not $description) { $description = $name }
        [System.Management.Automation.CompletionResult]::new(
            $name, $name, 'ParameterValue', $description)
    }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::spec::root;

    fn names(line: &str) -> (Vec<String>, u32) {
        let root = root(Program::Etcdctl);
        let words: Vec<Word> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let (last, before) = words.split_last().unwrap();
        let found = find(&root, before);
        let (choices, directive) = choices(&found.path, before, &found.words, last);
        (choices.into_iter().map(|(name, _)| name).collect(), directive)
    }

    #[test]
    fn commands_flags_and_values_complete() {
        assert_eq!(names("le"), (vec!["lease".into()], NO_FILES));
        assert_eq!(names("lease g"), (vec!["grant".into()], NO_FILES));
        assert_eq!(names("get --keys"), (vec!["--keys-only".into()], NO_FILES));
        assert_eq!(names("get -w j").0.len(), 5);
        assert_eq!(names("get --order="), (vec!["ASCEND".into(), "DESCEND".into()], FILES));
        assert_eq!(names("completion z"), (vec!["zsh".into()], NO_FILES));
        assert_eq!(names("get a"), (Vec::new(), FILES));
    }
}
