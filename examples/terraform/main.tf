# The four tables as `angzarr-relay tables create` makes them (.ci/terraform compares them), and a handler's stream.

resource "aws_dynamodb_table" "events" {
  name         = "${var.prefix}-events"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"
  range_key    = "sk"

  # The relay reads the new row of each record. A stream that is replaced has another ARN and none of the old records.
  stream_enabled   = true
  stream_view_type = "NEW_IMAGE"

  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "N"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }
}

resource "aws_dynamodb_table" "positions" {
  name         = "${var.prefix}-positions"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"

  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }
}

resource "aws_dynamodb_table" "snapshots" {
  name         = "${var.prefix}-snapshots"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"

  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }
}

resource "aws_dynamodb_table" "relay" {
  name         = "${var.prefix}-relay"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "pk"
  range_key    = "sk"

  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }
}

resource "aws_kinesis_stream" "handler" {
  count = var.kinesis_stream == null ? 0 : 1

  name             = var.kinesis_stream
  shard_count      = var.kinesis_mode == "PROVISIONED" ? var.kinesis_shards : null
  retention_period = var.kinesis_retention_hours

  stream_mode_details {
    stream_mode = var.kinesis_mode
  }
}
