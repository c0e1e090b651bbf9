# bash completion for rusd                              -*- shell-script -*-

_rusd_complete() {
    local IFS=$' \t\n'
    local answer directive flag full index line offered raw word
    local rest="$COMP_LINE" program="rusd"
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

complete -F _rusd_complete rusd
