package app

import (
	"context"
	"fmt"
	"net"
	"os"
)

// States of the service for systemd.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// notify tells systemd a state, if it has started the process and wants to know
// (Type=notify). The protocol is that of sd_notify(3).
func notify(ctx context.Context, state string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	// A name that begins with @ is an abstract one, of which net takes care.
	c, err := new(net.Dialer).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	_, err = c.Write([]byte(state))
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}
