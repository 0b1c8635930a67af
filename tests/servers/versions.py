"""Every version that the tests download, in one table."""

from __future__ import annotations

# From Maven Central.
# 4.3 and 4.4 forget transactions when they restart alone: see "Transactions that never end" in docs/kafka.md.
KAFKA = "4.2.2"
KAFKA_SCALA = "2.13"
LOG4J = "2.25.5"
APICURIO = "2.6.13.Final"
MAVEN_DEPENDENCY_PLUGIN = "3.8.1"

# From the Go module proxy. MinIO publishes no tags that the proxy knows; this is its last commit.
MINIO = "v0.0.0-20260212201848-7aac2a2c5b7c"
HELM = "v3.22.0"
KUBECONFORM = "v0.8.0"
TOXIPROXY = "v2.5.0"

# From Docker Hub, where a Docker engine answers.
KAFKA_IMAGE = f"apache/kafka:{KAFKA}"
MINIO_IMAGE = "minio/minio:RELEASE.2025-09-07T16-13-09Z"
APICURIO_IMAGE = f"apicurio/apicurio-registry-mem:{APICURIO}"
