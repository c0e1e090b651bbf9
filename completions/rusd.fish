# fish completion for rusd                              -*- shell-script -*-

function __rusd_complete
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

complete -c rusd -f -a '(__rusd_complete)'
