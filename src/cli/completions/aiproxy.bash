
# Completes with the names of the config. If the program cannot be called, it completes commands,
# options and closed lists only.
_aiproxy() {
    local reply kind= line=${COMP_LINE:0:COMP_POINT}
    [[ -n $line ]] || line="${COMP_WORDS[*]:0:COMP_CWORD} ${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while IFS= read -r reply; do
        if [[ -z $kind ]]; then kind=$reply; else COMPREPLY+=("$reply"); fi
    done < <(command aiproxy __complete bash "$COMP_WORDBREAKS" "$line" 2>/dev/null)
    case $kind in
        "") _aiproxy_static "$@" ;;
        # Without candidates of its own, an argument that names a file gets those of the shell.
        files) compopt -o default 2>/dev/null ;;
        folders) compopt -o dirnames 2>/dev/null ;;
        open) compopt -o nospace 2>/dev/null ;;
    esac
}
complete -F _aiproxy aiproxy
