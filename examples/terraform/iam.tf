# The relay's role. What it allows stands in the chart's policy documents alone; here only their placeholders are filled.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  # tables-create.json is not among them: the tables are made here.
  documents = var.kinesis_stream == null ? ["relay", "inspect", "operator"] : ["relay", "inspect", "operator", "kinesis"]

  policies = {
    for document in local.documents : document => replace(replace(replace(replace(replace(
      file("${path.module}/../../helm/angzarr-relay/docs/iam/${document}.json"),
      "arn:aws:", "arn:${data.aws_partition.current.partition}:"),
      "REGION", var.region),
      "ACCOUNT", data.aws_caller_identity.current.account_id),
      "PREFIX", var.prefix),
    "STREAM", coalesce(var.kinesis_stream, "-"))
  }

  # What the pods need: to run, for `doctor` and the other commands that only read, and to write to the stream. The
  # operator's policy lets people write and remove events; it is for their roles, not for the pods'.
  pod_documents = setsubtract(local.documents, ["operator"])

  oidc_issuer = var.oidc_provider_arn == null ? "" : split(":oidc-provider/", var.oidc_provider_arn)[1]
}

resource "aws_iam_policy" "relay" {
  for_each = local.policies

  name   = "${var.prefix}-relay-${each.key}"
  policy = each.value
}

resource "aws_iam_role" "relay" {
  name               = "${var.prefix}-relay"
  assume_role_policy = data.aws_iam_policy_document.trust.json

  lifecycle {
    precondition {
      condition     = var.oidc_provider_arn != null || var.pod_identity_cluster != null
      error_message = "Nobody could assume the role: set oidc_provider_arn (IRSA) or pod_identity_cluster (Pod Identity)."
    }
  }
}

resource "aws_iam_role_policy_attachment" "relay" {
  for_each = local.pod_documents

  role       = aws_iam_role.relay.name
  policy_arn = aws_iam_policy.relay[each.value].arn
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = var.oidc_provider_arn == null ? [] : [var.oidc_provider_arn]

    content {
      sid     = "IRSA"
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [statement.value]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${var.service_account}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = var.pod_identity_cluster == null ? [] : [var.pod_identity_cluster]

    content {
      sid     = "PodIdentity"
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }

      # The association alone would do; these keep others of the account from pointing a pod of their own at this role.
      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/eks-cluster-name"
        values   = [statement.value]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-namespace"
        values   = [var.namespace]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/kubernetes-service-account"
        values   = [var.service_account]
      }
    }
  }
}

resource "aws_eks_pod_identity_association" "relay" {
  count = var.pod_identity_cluster == null ? 0 : 1

  cluster_name    = var.pod_identity_cluster
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.relay.arn
}
