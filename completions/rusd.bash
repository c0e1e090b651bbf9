# bash completion for rusd                              -*- shell-script -*-

_rusd_complete() {
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

complete -F _rusd_complete rusd
