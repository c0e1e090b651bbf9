# fish completion for rusd                              -*- shell-script -*-

function __rusd_complete
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

complete -c rusd -f -a '(__rusd_complete)'
