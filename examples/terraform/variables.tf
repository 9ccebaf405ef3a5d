variable "region" {
  description = "The region of the tables and of the stream; the relay's storage.dynamo.region."
  type        = string
  default     = "us-east-1"
}

variable "prefix" {
  description = "What the tables' names begin with; the relay's storage.dynamo.table_prefix."
  type        = string
  default     = "angzarr"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{3,200}$", var.prefix))
    error_message = "Names of tables are letters, digits, underscores, dots and hyphens."
  }
}

variable "point_in_time_recovery" {
  description = "Whether the tables can be restored to any second of the last 35 days. `tables create` leaves it off."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether the tables refuse to be deleted. `tables create` leaves it off."
  type        = bool
  default     = false
}

variable "kinesis_stream" {
  description = "The Kinesis stream that a handler writes to; null makes none."
  type        = string
  default     = "angzarr-orders"
}

variable "kinesis_mode" {
  description = "How the stream gets its shards: ON_DEMAND, or PROVISIONED with kinesis_shards."
  type        = string
  default     = "ON_DEMAND"

  validation {
    condition     = contains(["ON_DEMAND", "PROVISIONED"], var.kinesis_mode)
    error_message = "The mode is ON_DEMAND or PROVISIONED."
  }
}

variable "kinesis_shards" {
  description = "The shards of a PROVISIONED stream: each takes 1 MB and 1,000 records a second."
  type        = number
  default     = 2
}

variable "kinesis_retention_hours" {
  description = "How long the stream keeps its records: from 24 hours to 8,760."
  type        = number
  default     = 24
}

variable "namespace" {
  description = "The Kubernetes namespace of the relay."
  type        = string
  default     = "angzarr"
}

variable "service_account" {
  description = "The relay's Kubernetes service account."
  type        = string
  default     = "angzarr-relay"
}

variable "oidc_provider_arn" {
  description = "For IRSA: the ARN of the cluster's OIDC provider in IAM; null leaves IRSA out."
  type        = string
  default     = null

  validation {
    condition     = var.oidc_provider_arn == null ? true : can(regex(":oidc-provider/", var.oidc_provider_arn))
    error_message = "An OIDC provider's ARN reads arn:aws:iam::ACCOUNT:oidc-provider/ISSUER."
  }
}

variable "pod_identity_cluster" {
  description = "For EKS Pod Identity: the cluster's name; null leaves it out. The cluster needs the Pod Identity Agent."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}
