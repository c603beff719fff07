import type { components } from "./gen/api.js";

export type { components, operations, paths } from "./gen/api.js";

type Schemas = components["schemas"];
export type ActiveUser = Schemas["ActiveUser"];
export type ActiveUserList = Schemas["ActiveUserList"];
export type Change = Schemas["Change"];
export type ChangeInclude = Schemas["ChangeInclude"];
export type ChangeKind = Schemas["ChangeKind"];
export type ChangeProgress = Schemas["ChangeProgress"];
export type ChangeStart = Schemas["ChangeStart"];
export type Comment = Schemas["Comment"];
export type Document = Schemas["Document"];
export type ErrorReason = Schemas["ErrorReason"];
export type Freshness = Schemas["Freshness"];
export type Group = Schemas["Group"];
export type ResourceKind = Schemas["ResourceKind"];
export type ResourceOmission = Schemas["ResourceOmission"];
export type Room = Schemas["Room"];
export type Thread = Schemas["Thread"];
