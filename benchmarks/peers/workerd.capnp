# The two programs on workerd; `--socket-addr http=…` says where they listen.
using Workerd = import "/workerd/workerd.capnp";

const original :Workerd.Config = (
  services = [(name = "main", worker = .originalWorker)],
  sockets = [(name = "http", http = (), service = "main")],
);

const hibernation :Workerd.Config = (
  services = [(name = "main", worker = .hibernationWorker)],
  sockets = [(name = "http", http = (), service = "main")],
);

const originalWorker :Workerd.Worker = (
  modules = [(name = "original.js", esModule = embed "original.js")],
  compatibilityDate = "2026-11-01",
  bindings = [(name = "OBJECTS", durableObjectNamespace = "EchoObject")],
  durableObjectNamespaces = [(className = "EchoObject", uniqueKey = "original")],
  durableObjectStorage = (inMemory = void),
);

const hibernationWorker :Workerd.Worker = (
  modules = [(name = "hibernation.js", esModule = embed "hibernation.js")],
  compatibilityDate = "2026-11-01",
  bindings = [(name = "OBJECTS", durableObjectNamespace = "EchoObject")],
  durableObjectNamespaces = [(className = "EchoObject", uniqueKey = "hibernation")],
  durableObjectStorage = (inMemory = void),
);
