//! The scripts for shells. They pass the words on to `__complete` and show its answers; quoting is
//! theirs, since each shell has its own.

use crate::cli::spec::Program;

/// The script for a shell; None if the shell is unknown.
pub(super) fn script(program: Program, shell: &str) -> Option<String> {
    let template = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        "elvish" if program == Program::Rusd => ELVISH,
        _ => return None,
    };
    Some(template.replace("PROGRAM", program.name()))
}

const BASH: &str = r#"# bash completion for PROGRAM                              -*- shell-script -*-

_PROGRAM_complete() {
    local IFS=$' \t\n'
    local answer directive flag full index line offered raw word
    local rest="$COMP_LINE" program="PROGRAM"
    local -a words=()
    COMPREPLY=()
    # bash splits words at : and = as well. What no blank separates is one word.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        if [[ $index -eq 0 || "$rest" == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]}-1]+="$word"
        fi
        rest="${rest#"${rest%%[![:blank:]]*}"}"
        rest="${rest#"$word"}"
    done
    raw="${words[${#words[@]}-1]}"
    for index in "${!words[@]}"; do
        word="${words[index]}"
        case "$word" in
            \'*) word="${word#\'}" word="${word%\'}" ;;
            \"*) word="${word#\"}" word="${word%\"}" ;;
            *) word="${word//\\/}" ;;
        esac
        words[index]="$word"
    done
    # Not what an alias is called.
    word="${words[0]/#\~\//$HOME/}"
    [[ "$(type -t -- "$word")" == file ]] && program="$word"
    answer="$("$program" __completeNoDesc "${words[@]:1}" 2>/dev/null)" || return
    directive="${answer##*:}"
    [[ "$directive" =~ ^[0-9]+$ ]] || return
    # Answers are values where a flag stands before them.
    flag=""
    [[ "$raw" == --*=* ]] && flag="${raw%%=*}="
    while IFS= read -r line; do
        [[ -n "$line" ]] || continue
        case "$raw" in
            \'*) [[ "$line" == *\'* ]] && continue
                offered="$line" ;;
            \"*) [[ "$line" == *[\"\$\`\\!]* ]] && continue
                offered="$line" ;;
            *) printf -v full '%s%q' "$flag" "$line"
                # What readline completes begins after the last : or =.
                offered="${full#"${raw%"$2"}"}"
                [[ "$full" == "$raw"* ]] || continue ;;
        esac
        COMPREPLY+=("$offered")
    done <<<"${answer%:*}"
    if ((directive & 2)); then
        compopt -o nospace 2>/dev/null
    fi
    if [[ ${#COMPREPLY[@]} -eq 0 && $((directive & 4)) -eq 0 ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "$2")
    fi
}

complete -F _PROGRAM_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM

# zsh completion for PROGRAM                              -*- shell-script -*-

_PROGRAM() {
    local answer directive line
    local -a asked found deeper
    local ret=1
    asked=("${(@Q)words[2,CURRENT]}")
    answer="$(${~${(Q)words[1]}} __complete "${asked[@]}" 2>/dev/null)" || return
    directive="${answer##*:}"
    answer="${answer%:*}"
    [[ "$directive" == <-> ]] || return
    for line in "${(@f)answer}"; do
        [[ -z "$line" ]] && continue
        line="${line//\\/\\\\}"
        line="${line//:/\\:}"
        # What goes on below it gets no blank.
        if (( directive & 2 )) && [[ "${line%%$'\t'*}" == */ ]]; then
            deeper+=("${line/$'\t'/:}")
        else
            found+=("${line/$'\t'/:}")
        fi
    done
    # Answers are values where a flag stands before them.
    [[ "$PREFIX" == --*=* ]] && compset -P 1 '*='
    (( ${#deeper} )) && _describe -t deeper 'PROGRAM' deeper -S '' && ret=0
    (( ${#found} )) && _describe -t found 'PROGRAM' found && ret=0
    if (( ret && !(directive & 4) )); then
        _files && ret=0
    fi
    return ret
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
    set -l current (commandline -ct)
    set -l plain (string unescape -- $current)
    or set plain $current
    set -l answer ($words[1] __complete $words[2..-1] "$plain" 2>/dev/null)
    or return
    set -l directive (string sub --start 2 -- $answer[-1])
    set -e answer[-1]
    # Answers are values where a flag stands before them.
    set -l flag (string match -r -- '^--[^=]*=' "$plain")
    if test (count $answer) -gt 0
        for line in $answer
            printf '%s\n' "$flag$line"
        end
    else if test (math "$directive % 8") -lt 4
        for line in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' "$plain"))
            printf '%s\n' "$flag$line"
        end
    end
end

complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

const POWERSHELL: &str = r#"# powershell completion for PROGRAM                              -*- shell-script -*-

Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object {
        if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value } else { "$_" }
    })
    if (-not $wordToComplete) { $words += '""' }
    $flag = if ("$wordToComplete" -match '^--[^=]*=') { $Matches[0] } else { '' }
    $answer = @(& $commandAst.CommandElements[0].Value __complete @words 2>$null)
    $answer | Select-Object -SkipLast 1 | ForEach-Object {
        $name, $description = $_ -split "`t", 2
        if (-not $description) { $description = $name }
        $text = "$flag$name"
        if ($text -match "[^\w/.:=@%+,-]") { $text = "'" + $text.Replace("'", "''") + "'" }
        [System.Management.Automation.CompletionResult]::new(
            $text, $name, 'ParameterValue', $description)
    }
}
"#;

const ELVISH: &str = r#"# elvish completion for PROGRAM

use str

set edit:completion:arg-completer[PROGRAM] = {|@words|
    var current = $words[-1]
    var answer = []
    try {
        set answer = [(e:PROGRAM __complete (all $words[1..]) 2>/dev/null)]
    } catch e {
        nop
    }
    if (> (count $answer) 0) {
        var directive = (num (str:trim-prefix $answer[-1] ':'))
        # Answers are values where a flag stands before them.
        var flag = ''
        if (and (str:has-prefix $current '--') (str:contains $current '=')) {
            set flag = (str:split &max=2 '=' $current | take 1)'='
        }
        for line $answer[..-1] {
            var parts = [(str:split &max=2 "\t" $line)]
            var display = $parts[0]
            if (> (count $parts) 1) {
                set display = $parts[0]' ('$parts[1]')'
            }
            var suffix = ' '
            if (str:has-suffix $parts[0] '/') {
                set suffix = ''
            }
            edit:complex-candidate $flag$parts[0] &display=$display &code-suffix=$suffix
        }
        if (and (== (count $answer) 1) (< $directive 4)) {
            edit:complete-filename $current
        }
    }
}
"#;
