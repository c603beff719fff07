package store

import "github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"

// groupKind is how groups are stored, with their members.
var groupKind = &ItemKind{
	Kind: mirror.KindGroup, ID: "group_id", Guarded: true,
	Head: ItemTable{Name: "mirror_group", Columns: []Column{
		{"organization_id", ColumnID},
		{sourceColumn, ColumnBytes},
		{"create_time", ColumnTime},
		{"update_time", ColumnTime},
	}},
	Parts: []ItemTable{
		{Name: "mirror_group_member", Key: 1, Columns: []Column{{"user_id", ColumnID}, {"add_time", ColumnTime}}},
	},
}

// GroupItem returns a group, as package group reads it, as it is stored.
func GroupItem(g mirror.Group) Item {
	var members [][]any
	for _, m := range g.Members {
		members = append(members, []any{m.UserID, m.AddTime})
	}
	return newItem(g.ID, g.SHA256, []any{g.OrganizationID, g.Source, g.CreateTime, g.UpdateTime}, members)
}
