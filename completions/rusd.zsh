#compdef rusd

# zsh completion for rusd                              -*- shell-script -*-

_rusd() {
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
    (( ${#deeper} )) && _describe -t deeper 'rusd' deeper -S '' && ret=0
    (( ${#found} )) && _describe -t found 'rusd' found && ret=0
    if (( ret && !(directive & 4) )); then
        _files && ret=0
    fi
    return ret
}

if [ "$funcstack[1]" = "_rusd" ]; then
    _rusd "$@"
else
    compdef _rusd rusd
fi
