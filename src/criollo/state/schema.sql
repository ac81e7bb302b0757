-- state.db: what runs. A row is written before the first resource of its object is made, and deleted after the last
-- one is gone. Columns are what is looked up or must be unique; `document` is the whole record as JSON.

CREATE TABLE fact (               -- one row per fact about the database itself: boot_id
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pod (
  id TEXT PRIMARY KEY,            -- 64 hex digits
  name TEXT NOT NULL UNIQUE,      -- k8s_POD_<pod>_<namespace>_<uid>_<attempt>: the reservation
  state TEXT NOT NULL,            -- model.pod.PodState
  document TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE container (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  pod_id TEXT NOT NULL REFERENCES pod (id),
  state TEXT NOT NULL,            -- model.container.ContainerState
  document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX container_of_pod ON container (pod_id);
