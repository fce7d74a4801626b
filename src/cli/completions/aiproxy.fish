function __aiproxy_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l reply (command aiproxy __complete fish $words "$current" 2>/dev/null)
    set -l option (string match -r -- '^--[^=]*=' "$current")
    set -l path (string replace -r -- '^--[^=]*=' '' "$current")
    switch "$reply[1]"
        case files
            for found in (__fish_complete_path "$path")
                echo "$option$found"
            end
        case folders
            for found in (__fish_complete_directories "$path")
                echo "$option$found"
            end
        case '*'
            if set -q reply[2]
                printf '%s\n' $reply[2..-1]
            end
    end
end
complete -c aiproxy -f -a '(__aiproxy_complete)'
