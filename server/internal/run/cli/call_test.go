package cli

import "testing"

func TestMethodOf(t *testing.T) {
	t.Parallel()
	for name, service := range map[string]string{
		"ListRooms": "MirrorService", "ListEvents": "EventService", "GetStatus": "AdminService",
		"WatchChanges": "ChangeService",
	} {
		method, err := methodOf(name)
		if err != nil || string(method.Parent().Name()) != service {
			t.Errorf("methodOf(%q) = %v, %v; want that of %s", name, method, err, service)
		}
	}
	if method, err := methodOf("listrooms"); err == nil {
		t.Errorf("methodOf of an unknown name = %v; want an error", method)
	}
}
