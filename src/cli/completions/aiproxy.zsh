
# Completes with the names of the config. If the program cannot be called, it completes commands,
# options and closed lists only.
_aiproxy() {
    local line value
    local -a reply closed open
    reply=("${(@f)$(command aiproxy __complete zsh \
        "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $reply[1] in
        "")
            _aiproxy_static "$@"
            return ;;
        files|folders)
            [[ $PREFIX == --*=* ]] && compset -P '*='
            if [[ $reply[1] == files ]]; then _files; else _files -/; fi
            return ;;
    esac
    for line in "${(@)reply[2,-1]}"; do
        [[ -n $line ]] || continue
        # `_describe` separates a value from its description with a colon.
        value=${line%%$'\t'*}
        line=${value//:/\\:}:${line#*$'\t'}
        case $value in
            *[:=]) open+=("$line") ;;
            *) closed+=("$line") ;;
        esac
    done
    local shown=1
    (( $#closed )) && _describe -t values value closed && shown=0
    (( $#open )) && _describe -t values value open -S '' && shown=0
    return shown
}

if [[ $funcstack[1] == _aiproxy ]]; then
    _aiproxy "$@"
else
    compdef _aiproxy aiproxy
fi
