package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Config are the commands about settings.
type Config struct {
	Print configPrint `cmd:"" help:"Print the settings that serve would use here. Secrets are only said to be set or not."`
}

type configPrint struct {
	Format
}

// setting is one setting with its value.
type setting struct {
	Variable string `json:"variable"`
	Value    string `json:"value"`
	// Default says that nothing sets it.
	Default bool `json:"default"`
}

// Run prints the settings, right or wrong.
func (c *configPrint) Run(resolver *config.Resolver, std Streams) error {
	var list []setting
	for _, flag := range config.Settings() {
		found, err := resolver.Resolve(nil, nil, flag)
		if err != nil {
			return err
		}
		value := flag.Default
		if found != nil {
			value = fmt.Sprint(found)
		}
		list = append(list, setting{flag.Envs[0], shown(flag, value), found == nil})
	}
	return c.Print(std.Out, list, func(w io.Writer) {
		rows := make([][]string, len(list))
		for i, s := range list {
			from := "set"
			if s.Default {
				from = "default"
			}
			rows[i] = []string{s.Variable, s.Value, from}
		}
		table(w, "SETTING | VALUE | FROM", rows)
	})
}

// shown is what may be seen of a value.
func shown(flag *kong.Flag, value string) string {
	switch flag.Target.Interface().(type) {
	case config.Secret:
		return config.NewSecret(value).String()
	case []config.Secret:
		return config.NewSecret(strings.Trim(value, ",")).String()
	}
	return value
}
