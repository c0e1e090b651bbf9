#compdef rusd

# zsh completion for rusd                              -*- shell-script -*-

_rusd() {
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
        _describe 'rusd' found
    elif (( ! (directive & 4) )); then
        _files
    fi
}

if [ "$funcstack[1]" = "_rusd" ]; then
    _rusd "$@"
else
    compdef _rusd rusd
fi
