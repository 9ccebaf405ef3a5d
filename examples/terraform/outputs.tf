output "role_arn" {
  description = "The relay's role: with IRSA, the annotation eks.amazonaws.com/role-arn of its service account."
  value       = aws_iam_role.relay.arn
}

output "policy_arns" {
  description = "The policies by document; `operator` is for the roles of people who append events and repair."
  value       = { for document, policy in aws_iam_policy.relay : document => policy.arn }
}

output "table_prefix" {
  description = "The relay's storage.dynamo.table_prefix."
  value       = var.prefix
}

output "events_stream_arn" {
  description = "The stream of the events table. The relay finds it by itself."
  value       = aws_dynamodb_table.events.stream_arn
}

output "kinesis_stream" {
  description = "The stream's name for a handler's kinesis.stream; null without one."
  value       = one(aws_kinesis_stream.handler[*].name)
}
